"""Chest radiograph."""

from tasks.radiology_demo.lexicon import FIXED, GROWING, Change, Indication, Kind, Modality, Topic

_LOBES = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
    "lingula",
)
_RIBS = ("fourth", "fifth", "sixth", "seventh", "eighth", "ninth")

CHEST_RADIOGRAPH = Modality(
    name="chest radiograph",
    exams=("Chest, PA and lateral", "Portable AP chest radiograph", "Chest radiograph, two views"),
    indications=(
        Indication("fever and productive cough", "airspace"),
        Indication("hypoxia, evaluate for pneumonia", "airspace"),
        Indication("shortness of breath and leg swelling", "edema"),
        Indication("chest pain after a fall", "bones"),
        Indication("status post chest tube removal", "pneumothorax"),
        Indication("pleuritic chest pain", "pneumothorax"),
        Indication("weight loss and a long smoking history", "nodule"),
        Indication("status post thoracentesis", "pleura"),
    ),
    normal="no acute cardiopulmonary process",
    topics=(
        Topic(
            "devices",
            kinds=(
                Kind(
                    "malpositioned feeding tube, coiled in the {site}",
                    (
                        "The tip of the feeding tube is coiled in the {site}",
                        "A feeding tube loops on itself within the {site}",
                    ),
                    95,
                    sites=("distal esophagus", "mid esophagus", "hypopharynx"),
                    changes=(Change.NEW,),
                    advice="repositioning of the tube before use",
                ),
                Kind(
                    "endotracheal tube in the {side} main bronchus",
                    (
                        "The endotracheal tube ends beyond the carina in the {side} main bronchus",
                        "Tip of the endotracheal tube projects over the {side} main bronchus",
                    ),
                    98,
                    changes=(Change.NEW,),
                    advice="withdrawing the tube by 3 cm",
                ),
                Kind(
                    "{side} chest port",
                    (
                        "A {side} chest port ends in the lower superior vena cava",
                        "{side} port catheter tip at the cavoatrial junction",
                    ),
                    5,
                    changes=(Change.STABLE,),
                ),
                Kind(
                    "pacemaker",
                    (
                        "A {side} pectoral pacemaker has leads in the usual position",
                        "Leads of a {side} pacemaker end over the right atrium and ventricle",
                    ),
                    5,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "airspace",
            absent=("focal consolidation", "lobar opacity"),
            normal=("Both lungs are well aerated.", "Lung volumes are normal."),
            answer="no evidence of pneumonia",
            kinds=(
                Kind(
                    "{site} pneumonia",
                    (
                        "There is a dense opacity with air bronchograms in the {site}",
                        "Patchy airspace disease is present in the {site}",
                        "A confluent infiltrate occupies the {site}",
                    ),
                    72,
                    sites=_LOBES,
                    gone="{site} pneumonia",
                    advice="a repeat radiograph after treatment",
                ),
                Kind(
                    "{grade} {side} basilar atelectasis",
                    (
                        "{grade} linear atelectasis is noted at the {side} base",
                        "{grade} volume loss with streaky density at the {side} base",
                    ),
                    12,
                    grades=("mild", "minimal", "moderate"),
                ),
                Kind(
                    "collapse of the {site}",
                    (
                        "Complete opacification of the {site} with shift of the fissure",
                        "The {site} is airless with displacement of the hilum",
                    ),
                    82,
                    sites=_LOBES[:5],
                    advice="bronchoscopy to exclude an obstructing lesion",
                ),
            ),
        ),
        Topic(
            "edema",
            absent=("pulmonary edema", "vascular congestion"),
            normal=("The pulmonary vasculature is unremarkable.",),
            answer="no pulmonary edema",
            kinds=(
                Kind(
                    "{grade} pulmonary edema",
                    (
                        "{grade} interstitial thickening with Kerley B lines",
                        "There is {grade} perihilar haziness with cephalized vessels",
                    ),
                    65,
                    gone="interstitial edema",
                ),
            ),
        ),
        Topic(
            "pleura",
            absent=("pleural effusion", "layering pleural fluid"),
            normal=("The costophrenic angles are sharp.", "The pleural surfaces are smooth."),
            answer="no residual pleural fluid",
            kinds=(
                Kind(
                    "{grade} {side} pleural effusion",
                    (
                        "A {grade} effusion blunts the {side} costophrenic angle",
                        "{grade} {side} effusion with a meniscus",
                        "There is a {grade} amount of fluid in the {side} pleural space",
                    ),
                    50,
                    grades=("small", "moderate", "large"),
                    gone="{side} effusion",
                ),
                Kind(
                    "{grade} bilateral pleural effusions",
                    (
                        "There are {grade} effusions on both sides",
                        "Both costophrenic angles are obscured by {grade} effusions",
                    ),
                    54,
                    grades=("small", "moderate", "large"),
                    gone="bilateral effusions",
                ),
                Kind(
                    "calcified plaque along the {side} pleura",
                    ("Calcified plaque lines the {side} hemidiaphragm",),
                    8,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "pneumothorax",
            absent=("pneumothorax", "apical air collection"),
            answer="no pneumothorax",
            kinds=(
                Kind(
                    "{size} {side} pneumothorax",
                    (
                        "A visible pleural line lies {size} from the {side} chest wall",
                        "There is a {side} apical pneumothorax of {size}",
                    ),
                    90,
                    size=(5, 38),
                    gone="{side} pneumothorax",
                    advice="placement of a chest tube",
                    advice_from=20,
                ),
            ),
        ),
        Topic(
            "nodule",
            absent=("suspicious nodule", "focal lung lesion"),
            answer="no suspicious lung nodule",
            kinds=(
                Kind(
                    "{size} {site} nodule",
                    (
                        "A {size} rounded density projects over the {site}",
                        "There is a {size} nodular opacity in the {site}",
                    ),
                    46,
                    sites=_LOBES,
                    size=(6, 29),
                    changes=GROWING,
                    advice="chest CT for further characterization",
                    advice_from=8,
                ),
                Kind(
                    "calcified granuloma of the {site}",
                    ("A calcified granuloma is again seen in the {site}",),
                    8,
                    sites=_LOBES,
                    changes=(),
                ),
            ),
        ),
        Topic(
            "heart",
            normal=(
                "Heart size is normal.",
                "The cardiac silhouette is not enlarged.",
                "Cardiomediastinal contours are within normal limits.",
            ),
            kinds=(
                Kind(
                    "{grade} cardiomegaly",
                    (
                        "The heart is {grade}ly enlarged",
                        "{grade} enlargement of the cardiac silhouette",
                    ),
                    35,
                ),
                Kind(
                    "tortuous aorta",
                    ("The aorta is tortuous and calcified", "Calcification of the aortic knob"),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "bones",
            absent=("displaced fracture", "acute osseous injury"),
            normal=("The visualized bones are intact.",),
            answer="no displaced rib fracture",
            kinds=(
                Kind(
                    "fracture of the {side} {site} rib",
                    (
                        "There is cortical disruption of the {side} {site} rib",
                        "A break in the {side} lateral {site} rib is noted",
                    ),
                    58,
                    sites=_RIBS,
                    changes=FIXED,
                ),
                Kind(
                    "{grade} thoracic spondylosis",
                    (
                        "{grade} degenerative changes of the thoracic spine",
                        "{grade} spurring along the thoracic vertebrae",
                    ),
                    5,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
    ),
)
