"""CT of the chest."""

from tasks.radiology_demo.lexicon import GROWING, Change, Indication, Kind, Modality, Topic

_LOBES = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
    "lingula",
)

CHEST_CT = Modality(
    name="chest CT",
    exams=("CT of the chest with contrast", "CT pulmonary angiogram", "Chest CT, helical axial"),
    indications=(
        Indication("sudden dyspnea, evaluate for pulmonary embolism", "embolus"),
        Indication("tachycardia and recent immobilization", "embolus"),
        Indication("lung cancer, restaging after chemotherapy", "nodule"),
        Indication("smoking history and hemoptysis", "nodule"),
        Indication("tearing chest pain", "aorta"),
        Indication("persistent fever on antibiotics", "airspace"),
        Indication("lymphoma on treatment", "nodes"),
    ),
    normal="no acute abnormality in the chest",
    topics=(
        Topic(
            "embolus",
            absent=("filling defect in the pulmonary arteries", "central embolus"),
            normal=("The pulmonary arteries are patent to the segmental level.",),
            answer="no pulmonary embolism",
            kinds=(
                Kind(
                    "pulmonary embolism in the {site} artery",
                    (
                        "A low density clot lies within the {site} artery",
                        "Intraluminal thrombus expands the {site} artery",
                    ),
                    97,
                    sites=(
                        "right main pulmonary",
                        "left main pulmonary",
                        "right lower lobar",
                        "left lower lobar",
                        "right upper segmental",
                    ),
                    gone="clot in the {site} artery",
                    advice="anticoagulation if not contraindicated",
                ),
            ),
        ),
        Topic(
            "aorta",
            absent=("dissection flap", "intramural hematoma"),
            normal=("The thoracic aorta is normal in caliber.",),
            answer="no aortic dissection",
            kinds=(
                Kind(
                    "{size} aneurysm of the {site} aorta",
                    (
                        "The {site} aorta is dilated to {size}",
                        "Maximum diameter of the {site} aorta is {size}, above normal",
                    ),
                    56,
                    sites=("ascending", "descending"),
                    size=(42, 63),
                    changes=GROWING,
                    advice="consultation with vascular surgery",
                    advice_from=55,
                ),
                Kind(
                    "aortic calcification",
                    ("{grade} atherosclerotic calcification of the arch",),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "nodes",
            absent=("mediastinal adenopathy", "enlarged hilar node"),
            answer="no thoracic lymphadenopathy",
            kinds=(
                Kind(
                    "{site} lymphadenopathy up to {size}",
                    (
                        "The largest {site} node measures {size} in short axis",
                        "Enlarged {site} nodes reach {size} in short axis",
                    ),
                    52,
                    sites=("paratracheal", "subcarinal", "hilar", "axillary", "prevascular"),
                    size=(11, 34),
                    advice="tissue sampling",
                    advice_from=20,
                ),
            ),
        ),
        Topic(
            "airspace",
            absent=("consolidation", "airspace disease"),
            normal=("The central airways are patent.",),
            answer="no pneumonia",
            kinds=(
                Kind(
                    "{site} pneumonia",
                    (
                        "Dense parenchymal opacity with air bronchograms fills the {site}",
                        "Clustered tree in bud opacities in the {site}",
                    ),
                    68,
                    sites=_LOBES,
                    gone="{site} pneumonia",
                ),
                Kind(
                    "{grade} emphysema",
                    (
                        "{grade} centrilobular emphysema is upper lobe predominant",
                        "There is {grade} paraseptal and centrilobular emphysema",
                    ),
                    15,
                    changes=(Change.STABLE, Change.WORSE),
                ),
                Kind(
                    "{site} abscess measuring {size}",
                    (
                        "A cavity with an air fluid level in the {site} spans {size}",
                        "Thick walled cavity of {size} within the {site}",
                    ),
                    84,
                    sites=_LOBES,
                    size=(18, 62),
                    gone="{site} cavity",
                    advice="drainage if there is no response to antibiotics",
                ),
            ),
        ),
        Topic(
            "nodule",
            absent=("suspicious pulmonary nodule", "lung mass"),
            answer="no suspicious pulmonary nodule",
            kinds=(
                Kind(
                    "{size} {site} nodule",
                    (
                        "A {size} solid nodule is present in the {site}",
                        "{size} noncalcified nodule within the {site}",
                    ),
                    48,
                    sites=_LOBES,
                    size=(4, 28),
                    advice="a follow-up CT in 3 months",
                    advice_from=8,
                ),
                Kind(
                    "{size} {site} malignancy",
                    (
                        "A {size} spiculated lesion distorts the {site}",
                        "Lobulated lesion with spiculated margins in the {site}, {size} in extent",
                    ),
                    80,
                    sites=_LOBES,
                    size=(31, 78),
                    advice="biopsy",
                ),
                Kind(
                    "apical scar",
                    ("{side} apical scarring", "There is scarring at the {side} apex"),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "pleura",
            absent=("pleural effusion", "pericardial effusion"),
            kinds=(
                Kind(
                    "{grade} {side} pleural effusion",
                    (
                        "{grade} layering {side} pleural fluid",
                        "A {grade} {side} pleural collection of simple fluid",
                    ),
                    44,
                    grades=("small", "moderate", "large"),
                    gone="{side} pleural fluid",
                ),
                Kind(
                    "{grade} pericardial effusion",
                    (
                        "{grade} amount of fluid surrounds the heart",
                        "The pericardial sac contains a {grade} quantity of fluid",
                    ),
                    60,
                    grades=("small", "moderate", "large"),
                    gone="pericardial fluid",
                    advice="echocardiography",
                ),
            ),
        ),
        Topic(
            "upper abdomen",
            normal=("Limited views of the upper abdomen are unremarkable.",),
            kinds=(
                Kind(
                    "hiatal hernia",
                    ("{grade} hiatal hernia", "There is a {grade} sliding hiatal hernia"),
                    8,
                    grades=("small", "moderate", "large"),
                    changes=(Change.STABLE,),
                ),
                Kind(
                    "{size} {side} adrenal nodule",
                    (
                        "The {side} adrenal gland contains a {size} nodule",
                        "{size} nodular thickening of the {side} adrenal gland",
                    ),
                    30,
                    size=(10, 34),
                    changes=GROWING,
                    advice="adrenal protocol CT",
                ),
            ),
        ),
        Topic(
            "bones",
            absent=("destructive bone lesion", "compression deformity"),
            kinds=(
                Kind(
                    "metastasis to {site}",
                    (
                        "A lytic focus replaces part of {site}",
                        "Sclerotic lesion with cortical breach at {site}",
                    ),
                    76,
                    sites=("T4", "T6", "T9", "the sternum", "the left scapula"),
                ),
                Kind(
                    "{grade} compression fracture of {site}",
                    (
                        "{grade} loss of height of {site}",
                        "There is {grade} anterior wedging of {site}",
                    ),
                    42,
                    sites=("T5", "T7", "T8", "T11", "T12"),
                    changes=GROWING,
                ),
            ),
        ),
    ),
)
