"""Ultrasound of the thyroid."""

from tasks.radiology_demo.lexicon import FIXED, GROWING, Change, Indication, Kind, Modality, Topic

_POLES = ("right upper pole", "right lower pole", "left upper pole", "left lower pole", "isthmus")

THYROID_ULTRASOUND = Modality(
    name="thyroid ultrasound",
    exams=("Thyroid ultrasound", "Ultrasound of the neck and thyroid", "Thyroid sonogram"),
    indications=(
        Indication("palpable neck lump", "nodule"),
        Indication("nodule found on a CT of the neck", "nodule"),
        Indication("suppressed TSH", "gland"),
        Indication("thyroid cancer, surveillance", "nodes"),
        Indication("difficulty swallowing", "gland"),
    ),
    normal="normal thyroid gland",
    topics=(
        Topic(
            "gland",
            normal=("The thyroid is normal in size and echotexture.",),
            answer="no goiter",
            kinds=(
                Kind(
                    "{grade} goiter",
                    (
                        "Both lobes of the thyroid are {grade}ly enlarged",
                        "{grade} symmetric enlargement of the thyroid",
                    ),
                    36,
                ),
                Kind(
                    "{grade} thyroiditis",
                    (
                        "The gland is {grade}ly heterogeneous with fibrous bands",
                        "{grade} diffuse coarsening of the thyroid echotexture",
                    ),
                    32,
                    changes=(Change.STABLE, Change.WORSE),
                ),
            ),
        ),
        Topic(
            "flow",
            normal=("Color flow is normal.", "Vascularity of the gland is normal."),
            kinds=(
                Kind(
                    "thyroid hyperemia",
                    (
                        "{grade} diffuse increase in color flow",
                        "Vascularity is {grade}ly increased throughout",
                    ),
                    30,
                ),
            ),
        ),
        Topic(
            "nodule",
            absent=("discrete solid nodule", "microcalcification"),
            answer="no suspicious thyroid nodule",
            kinds=(
                Kind(
                    "suspicious {size} nodule of the {site}",
                    (
                        "A {size} hypoechoic nodule with punctate foci lies in the {site}",
                        "Taller than wide hypoechoic nodule in the {site}, {size} in diameter",
                    ),
                    76,
                    sites=_POLES,
                    size=(6, 38),
                    changes=GROWING,
                    advice="fine needle aspiration",
                    advice_from=10,
                ),
                Kind(
                    "indeterminate {size} nodule of the {site}",
                    (
                        "A {size} isoechoic smooth nodule occupies the {site}",
                        "{size} predominantly solid nodule of the {site} with smooth margins",
                    ),
                    54,
                    sites=_POLES,
                    size=(7, 43),
                    advice="ultrasound in 12 months",
                    advice_from=15,
                ),
                Kind(
                    "colloid cysts",
                    ("Scattered {side} colloid cysts",),
                    8,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "cyst",
            kinds=(
                Kind(
                    "benign {size} cyst of the {side} lobe",
                    (
                        "An anechoic structure of {size} lies within the {side} lobe",
                        "The {side} lobe contains a {size} spongiform cyst",
                    ),
                    24,
                    size=(5, 33),
                    gone="cyst of the {side} lobe",
                ),
            ),
        ),
        Topic(
            "nodes",
            absent=("abnormal cervical node", "cervical adenopathy"),
            normal=("Cervical nodes keep their fatty hila.",),
            answer="no nodal disease",
            kinds=(
                Kind(
                    "metastatic {side} level {site} node of {size}",
                    (
                        "A rounded {side} level {site} node without a hilum measures {size}",
                        "At {side} level {site} is a {size} node with cystic change",
                    ),
                    84,
                    sites=("II", "III", "IV", "VI"),
                    size=(7, 29),
                    advice="fine needle aspiration",
                ),
                Kind(
                    "reactive nodes",
                    ("Oval {side} level II nodes with normal hila",),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "parathyroid",
            absent=("parathyroid enlargement",),
            kinds=(
                Kind(
                    "{size} {side} parathyroid adenoma",
                    (
                        "A {size} oval hypoechoic structure lies deep to the {side} lobe",
                        "Deep to the {side} lobe is an elongated hypoechoic focus of {size}",
                    ),
                    58,
                    size=(6, 22),
                    changes=FIXED,
                    advice="correlation with calcium and parathyroid hormone",
                ),
            ),
        ),
        Topic(
            "airway",
            normal=("The trachea is midline.",),
            kinds=(
                Kind(
                    "tracheal deviation to the {side}",
                    (
                        "The trachea is displaced to the {side}",
                        "There is displacement of the trachea toward the {side}",
                    ),
                    48,
                ),
            ),
        ),
        Topic(
            "vessels",
            absent=("jugular vein clot",),
            normal=("The carotid arteries are widely patent.",),
            kinds=(
                Kind(
                    "{side} internal jugular thrombosis",
                    (
                        "The {side} internal jugular vein is not compressible",
                        "Echogenic material distends the {side} internal jugular vein",
                    ),
                    88,
                    changes=FIXED,
                    gone="thrombus of the {side} internal jugular vein",
                    advice="anticoagulation if not contraindicated",
                ),
                Kind(
                    "carotid plaque",
                    ("{grade} calcified plaque at the {side} carotid bulb",),
                    8,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
    ),
)
