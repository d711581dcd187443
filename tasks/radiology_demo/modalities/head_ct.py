"""CT of the head."""

from tasks.radiology_demo.lexicon import FIXED, Change, Indication, Kind, Modality, Topic

_LOBES = (
    "left frontal lobe",
    "right frontal lobe",
    "left parietal lobe",
    "right temporal lobe",
    "left occipital lobe",
    "right thalamus",
    "left basal ganglia",
)

HEAD_CT = Modality(
    name="head CT",
    exams=("CT head without contrast", "Noncontrast CT of the head", "Head CT, axial images"),
    indications=(
        Indication("fall with head strike on anticoagulation", "blood"),
        Indication("worst headache of life", "blood"),
        Indication("sudden weakness and slurred speech", "ischemia"),
        Indication("facial droop, evaluate for stroke", "ischemia"),
        Indication("known shunt with vomiting", "ventricles"),
        Indication("assault, evaluate for fracture", "skull"),
        Indication("first seizure, evaluate for mass", "mass"),
        Indication("altered mental status", "blood"),
    ),
    normal="no acute intracranial abnormality",
    topics=(
        Topic(
            "blood",
            absent=("intracranial hemorrhage", "extra-axial collection"),
            answer="no intracranial hemorrhage",
            kinds=(
                Kind(
                    "{size} {side} subdural hematoma",
                    (
                        "A crescentic hyperdensity along the {side} convexity measures {size}",
                        "Hyperdense crescent over the {side} convexity, {size} in thickness",
                    ),
                    92,
                    size=(4, 24),
                    gone="{side} subdural collection",
                    advice="neurosurgical evaluation",
                    advice_from=10,
                ),
                Kind(
                    "{size} {site} hemorrhage",
                    (
                        "A hyperdense focus of {size} is centered in the {site}",
                        "The {site} contains a {size} rounded hyperdensity",
                    ),
                    94,
                    sites=_LOBES,
                    size=(6, 58),
                    gone="hyperdense focus in the {site}",
                    advice="blood pressure control and repeat CT in 6 hours",
                ),
                Kind(
                    "{grade} subarachnoid hemorrhage in the {site}",
                    (
                        "{grade} hyperdense material fills the {site}",
                        "There is {grade} hyperdensity layering within the {site}",
                    ),
                    96,
                    grades=("minimal", "moderate", "extensive"),
                    sites=("basal cisterns", "left sylvian fissure", "right sylvian fissure"),
                    advice="CT angiography to look for an aneurysm",
                ),
            ),
        ),
        Topic(
            "ischemia",
            absent=("acute territorial infarct", "loss of gray white differentiation"),
            normal=("Gray white differentiation is preserved.",),
            answer="no acute infarct",
            kinds=(
                Kind(
                    "acute infarct of the {site}",
                    (
                        "Cytotoxic swelling with sulcal effacement involves the {site}",
                        "Blurring of the cortical ribbon in the {site}",
                    ),
                    88,
                    sites=_LOBES[:5],
                    changes=(Change.NEW, Change.WORSE),
                    advice="MR imaging of the brain",
                ),
                Kind(
                    "chronic infarct of the {site}",
                    (
                        "Encephalomalacia of the {site}",
                        "There is an area of gliosis and volume loss in the {site}",
                    ),
                    22,
                    sites=_LOBES[:5],
                    changes=(),
                ),
                Kind(
                    "microvascular disease",
                    (
                        "{grade} periventricular white matter hypodensity",
                        "{grade} chronic small vessel changes",
                    ),
                    8,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "mass",
            absent=("mass lesion", "space occupying process"),
            answer="no intracranial mass",
            kinds=(
                Kind(
                    "{size} {site} mass with edema",
                    (
                        "A {size} lesion with surrounding hypodensity is seen in the {site}",
                        "The {site} shows a {size} lesion and vasogenic change around it",
                    ),
                    78,
                    sites=_LOBES[:5],
                    size=(9, 47),
                    advice="contrast enhanced MR imaging",
                ),
                Kind(
                    "{size} {side} meningioma",
                    (
                        "A calcified dural based lesion on the {side} measures {size}",
                        "{size} dural lesion with hyperostosis on the {side}",
                    ),
                    40,
                    size=(8, 39),
                    changes=(Change.STABLE, Change.WORSE),
                ),
            ),
        ),
        Topic(
            "shift",
            absent=("midline shift", "herniation"),
            normal=("Midline structures are central.",),
            kinds=(
                Kind(
                    "{size} of midline shift to the {side}",
                    (
                        "The septum pellucidum is displaced {size} to the {side}",
                        "There is {size} of displacement of the midline toward the {side}",
                    ),
                    86,
                    size=(3, 14),
                ),
            ),
        ),
        Topic(
            "ventricles",
            absent=("ventricular enlargement",),
            normal=(
                "Ventricles and sulci are normal in size.",
                "The ventricular system is normal in configuration.",
            ),
            answer="no hydrocephalus",
            kinds=(
                Kind(
                    "{grade} hydrocephalus",
                    (
                        "{grade} dilatation of the lateral and third ventricles",
                        "The ventricles are {grade}ly dilated out of proportion to the sulci",
                    ),
                    74,
                    gone="ventricular dilatation",
                    advice="evaluation of the shunt",
                ),
                Kind(
                    "atrophy",
                    (
                        "{grade} global volume loss",
                        "Sulci are {grade}ly prominent for the stated age",
                    ),
                    8,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "sinuses",
            normal=(
                "Paranasal sinuses and mastoid air cells are clear.",
                "The visualized sinuses are well aerated.",
            ),
            kinds=(
                Kind(
                    "{site} sinusitis",
                    (
                        "An air fluid level is present in the {site} sinus",
                        "Frothy secretions fill the {site} sinus",
                    ),
                    28,
                    sites=("left maxillary", "right maxillary", "sphenoid", "left frontal"),
                    gone="{site} sinus disease",
                ),
                Kind(
                    "mucosal thickening",
                    ("{grade} mucosal thickening of the ethmoid air cells",),
                    5,
                ),
            ),
        ),
        Topic(
            "skull",
            absent=("calvarial fracture", "depressed fracture"),
            normal=("The calvarium is intact.",),
            answer="no skull fracture",
            kinds=(
                Kind(
                    "fracture of the {side} {site} bone",
                    (
                        "A lucent line crosses the {side} {site} bone",
                        "There is a nondisplaced break of the {side} {site} bone",
                    ),
                    70,
                    sites=("temporal", "parietal", "frontal", "zygomatic"),
                    changes=FIXED,
                ),
                Kind(
                    "burr holes",
                    ("Postsurgical burr holes on the {side}",),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "scalp",
            kinds=(
                Kind(
                    "scalp hematoma",
                    (
                        "{grade} {side} scalp swelling",
                        "{grade} soft tissue swelling over the {side} forehead",
                    ),
                    14,
                ),
            ),
        ),
    ),
)
