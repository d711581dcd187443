"""MR imaging of the lumbar spine."""

from tasks.radiology_demo.lexicon import FIXED, GROWING, Change, Indication, Kind, Modality, Topic

_DISCS = ("L2-L3", "L3-L4", "L4-L5", "L5-S1")
_BODIES = ("T12", "L1", "L2", "L3", "L4", "L5")

LUMBAR_MR = Modality(
    name="lumbar spine MR",
    exams=("MR of the lumbar spine", "Lumbar spine MR with contrast", "MR lumbar spine, sagittal"),
    indications=(
        Indication("low back pain with radiation to the leg", "disc"),
        Indication("foot drop", "disc"),
        Indication("urinary retention and saddle anesthesia", "canal"),
        Indication("neurogenic claudication", "canal"),
        Indication("fever and back pain in a drug user", "infection"),
        Indication("bacteremia, evaluate for discitis", "infection"),
        Indication("back pain after minor trauma", "vertebrae"),
        Indication("breast cancer with new back pain", "marrow"),
    ),
    normal="no significant abnormality of the lumbar spine",
    topics=(
        Topic(
            "alignment",
            normal=("Alignment is anatomic.", "Lumbar lordosis is preserved."),
            kinds=(
                Kind(
                    "{size} anterolisthesis at {site}",
                    (
                        "The upper vertebra at {site} has slipped forward by {size}",
                        "There is {size} of forward displacement at {site}",
                    ),
                    44,
                    sites=_DISCS,
                    size=(3, 14),
                    changes=GROWING,
                ),
                Kind(
                    "scoliosis",
                    (
                        "{grade} curvature convex to the {side}",
                        "There is a {grade} curve toward the {side}",
                    ),
                    9,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "vertebrae",
            absent=("acute compression deformity", "loss of vertebral height"),
            normal=("Vertebral body heights are maintained.",),
            answer="no acute fracture",
            kinds=(
                Kind(
                    "acute {grade} compression fracture of {site}",
                    (
                        "{grade} wedging of {site} with bright STIR signal",
                        "{site} is {grade}ly flattened with marrow swelling on STIR",
                    ),
                    74,
                    sites=_BODIES,
                    changes=(Change.NEW, Change.WORSE),
                    advice="referral for vertebral augmentation",
                ),
                Kind(
                    "chronic compression fracture of {site}",
                    (
                        "Old wedging of {site} without STIR signal",
                        "{site} is flattened with normal marrow signal",
                    ),
                    24,
                    sites=_BODIES,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "marrow",
            absent=("marrow replacing lesion", "aggressive osseous lesion"),
            answer="no osseous metastasis",
            kinds=(
                Kind(
                    "{size} metastasis of the {site} {side} pedicle",
                    (
                        "A {size} dark T1 focus expands the {side} pedicle of {site}",
                        "Enhancing focus of {size} in the {side} pedicle of {site}",
                    ),
                    80,
                    sites=_BODIES,
                    size=(8, 33),
                    advice="whole body staging",
                ),
                Kind(
                    "hemangioma",
                    ("A hemangioma of {site} is bright on T1",),
                    5,
                    sites=_BODIES,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "cord",
            normal=(
                "The conus ends at L1 and is normal in signal.",
                "The distal cord has normal signal.",
            ),
            kinds=(
                Kind(
                    "intradural {size} tumor at {site}",
                    (
                        "An enhancing intradural structure at {site} measures {size}",
                        "At {site} an enhancing {size} lesion lies among the roots",
                    ),
                    70,
                    sites=_DISCS,
                    size=(6, 28),
                    changes=GROWING,
                    advice="neurosurgical evaluation",
                ),
                Kind(
                    "fatty filum",
                    ("Thin fatty filum without tethering",),
                    4,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "disc",
            absent=("disc herniation", "nerve root compression"),
            answer="no nerve root compression",
            kinds=(
                Kind(
                    "{site} disc extrusion compressing the {side} nerve root",
                    (
                        "At {site} disc material migrates down and displaces the {side} root",
                        "A {side} disc fragment at {site} flattens the exiting root",
                    ),
                    66,
                    sites=_DISCS,
                    gone="{side} disc fragment at {site}",
                    advice="spine surgery consultation",
                ),
                Kind(
                    "{grade} {side} foraminal narrowing at {site}",
                    (
                        "Facet spurs cause {grade} {side} foraminal encroachment at {site}",
                        "{grade} crowding of the {side} neural foramen at {site}",
                    ),
                    34,
                    sites=_DISCS,
                    changes=GROWING,
                ),
                Kind(
                    "disc bulge",
                    (
                        "{grade} circumferential bulge at {site}",
                        "Disc desiccation and {grade} bulging at {site}",
                    ),
                    10,
                    sites=_DISCS,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "canal",
            absent=("central canal stenosis", "thecal sac compression"),
            normal=("The spinal canal is capacious.",),
            answer="no cauda equina compression",
            kinds=(
                Kind(
                    "{grade} spinal stenosis at {site}",
                    (
                        "{grade} effacement of the cerebrospinal fluid around the roots at {site}",
                        "The thecal sac is {grade}ly constricted at {site}",
                    ),
                    56,
                    sites=_DISCS,
                    changes=GROWING,
                ),
            ),
        ),
        Topic(
            "infection",
            absent=("endplate erosion", "epidural fluid pocket"),
            answer="no discitis or epidural abscess",
            kinds=(
                Kind(
                    "discitis at {site}",
                    (
                        "Fluid signal in the disc with eroded endplates at {site}",
                        "The {site} endplates are eroded and enhance along with the disc",
                    ),
                    86,
                    sites=_DISCS,
                    advice="image guided aspiration",
                ),
                Kind(
                    "{size} epidural abscess at {site}",
                    (
                        "A rim enhancing epidural pocket of {size} extends along {site}",
                        "Peripherally enhancing epidural fluid at {site}, {size} in length",
                    ),
                    94,
                    sites=_DISCS,
                    size=(11, 67),
                    gone="epidural pocket at {site}",
                    advice="urgent neurosurgical evaluation",
                ),
            ),
        ),
        Topic(
            "soft tissues",
            normal=("The paraspinal muscles are normal in bulk.",),
            kinds=(
                Kind(
                    "paraspinal muscle atrophy",
                    ("{grade} fatty change of the paraspinal muscles",),
                    7,
                    changes=(Change.STABLE,),
                ),
                Kind(
                    "{size} {side} psoas abscess",
                    (
                        "The {side} psoas muscle contains a {size} loculated collection",
                        "{size} collection with a thick rim in the {side} psoas muscle",
                    ),
                    82,
                    size=(14, 72),
                    changes=FIXED,
                    gone="{side} psoas collection",
                    advice="percutaneous drainage",
                ),
            ),
        ),
    ),
)
