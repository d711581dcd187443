"""Ultrasound of the abdomen."""

from tasks.radiology_demo.lexicon import FIXED, GROWING, Change, Indication, Kind, Modality, Topic

_SEGMENTS = ("segment II", "segment IV", "segment V", "segment VI", "segment VII", "segment VIII")

ABDOMINAL_ULTRASOUND = Modality(
    name="abdominal ultrasound",
    exams=(
        "Right upper quadrant ultrasound",
        "Ultrasound of the abdomen, complete",
        "Abdominal sonogram with Doppler",
    ),
    indications=(
        Indication("right upper quadrant pain after meals", "gallbladder"),
        Indication("fever and jaundice", "duct"),
        Indication("elevated bilirubin", "duct"),
        Indication("rising creatinine", "kidneys"),
        Indication("cirrhosis, screening for carcinoma", "liver"),
        Indication("increasing abdominal girth", "fluid"),
        Indication("cirrhosis with acute decompensation", "portal vein"),
    ),
    normal="normal abdominal sonogram",
    topics=(
        Topic(
            "liver",
            absent=("focal liver lesion", "hepatic mass"),
            normal=("The liver is normal in size and echotexture.",),
            answer="no suspicious liver lesion",
            kinds=(
                Kind(
                    "{size} liver lesion in {site}",
                    (
                        "A {size} hypoechoic focus is seen in {site} of the liver",
                        "Within {site} of the liver is a {size} heterogeneous focus",
                    ),
                    66,
                    sites=_SEGMENTS,
                    size=(9, 55),
                    changes=GROWING,
                    advice="multiphase liver MR imaging",
                    advice_from=10,
                ),
                Kind(
                    "{grade} hepatic steatosis",
                    (
                        "The liver is {grade}ly echogenic",
                        "{grade} increase in the echogenicity of the liver",
                    ),
                    26,
                    changes=(Change.STABLE, Change.WORSE),
                ),
                Kind(
                    "hepatic hemangioma",
                    ("A {size} echogenic hemangioma in {site}",),
                    8,
                    sites=_SEGMENTS,
                    size=(7, 24),
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "portal vein",
            normal=("The main portal vein is patent with hepatopetal flow.",),
            answer="patent portal vein",
            kinds=(
                Kind(
                    "{grade} portal vein thrombosis",
                    (
                        "{grade} echogenic material within the portal vein",
                        "The portal vein lumen holds {grade} echogenic clot without flow",
                    ),
                    86,
                    grades=("partial", "occlusive"),
                    advice="anticoagulation if not contraindicated",
                ),
            ),
        ),
        Topic(
            "gallbladder",
            absent=("gallstones", "pericholecystic fluid"),
            normal=("The gallbladder is thin walled and anechoic.",),
            answer="no cholecystitis",
            kinds=(
                Kind(
                    "acute cholecystitis with a wall of {size}",
                    (
                        "The gallbladder wall is edematous at {size} with a positive Murphy sign",
                        "Positive Murphy sign and a gallbladder wall thickened to {size}",
                    ),
                    84,
                    size=(4, 11),
                    changes=(Change.NEW,),
                    advice="surgical consultation",
                ),
                Kind(
                    "cholelithiasis without cholecystitis",
                    (
                        "Mobile shadowing stones in the gallbladder with a negative Murphy sign",
                        "Layering stones and sludge, with a negative Murphy sign",
                    ),
                    36,
                    changes=FIXED,
                ),
                Kind(
                    "{size} gallbladder polyp",
                    (
                        "A {size} nonmobile nonshadowing focus adheres to the gallbladder wall",
                        "Adherent gallbladder focus of {size} without shadowing",
                    ),
                    30,
                    size=(3, 13),
                    changes=GROWING,
                    advice="surgical consultation",
                    advice_from=10,
                ),
            ),
        ),
        Topic(
            "duct",
            absent=("intrahepatic ductal dilatation", "biliary obstruction"),
            normal=("The common duct is normal in caliber.",),
            answer="no biliary dilatation",
            kinds=(
                Kind(
                    "biliary dilatation with a common duct of {size}",
                    (
                        "The common duct is widened to {size}",
                        "Caliber of the common duct is {size}, above the expected range",
                    ),
                    62,
                    size=(8, 21),
                    advice="MR cholangiography",
                ),
            ),
        ),
        Topic(
            "kidneys",
            absent=("hydronephrosis", "renal calculus"),
            normal=("Both kidneys are normal in length.",),
            answer="no hydronephrosis",
            kinds=(
                Kind(
                    "{grade} {side} hydronephrosis",
                    (
                        "{grade} dilatation of the {side} renal pelvis and calyces",
                        "The {side} collecting system is {grade}ly distended",
                    ),
                    68,
                    gone="dilatation of the {side} renal pelvis",
                    advice="urology referral",
                ),
                Kind(
                    "{size} nonobstructing {side} renal stone",
                    (
                        "A {size} shadowing focus in the {side} kidney without dilatation",
                        "{side} renal sinus focus of {size} with twinkle artifact",
                    ),
                    28,
                    size=(3, 12),
                    changes=GROWING,
                ),
                Kind(
                    "renal cyst",
                    ("A {size} anechoic cyst of the {side} kidney",),
                    5,
                    size=(8, 47),
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "spleen",
            normal=("The spleen is normal in size.",),
            kinds=(
                Kind(
                    "splenomegaly of {size}",
                    (
                        "The spleen is enlarged to {size}",
                        "Enlarged spleen, {size} in length",
                    ),
                    40,
                    size=(132, 214),
                ),
            ),
        ),
        Topic(
            "fluid",
            absent=("ascites", "free fluid"),
            answer="no ascites",
            kinds=(
                Kind(
                    "{grade} ascites",
                    (
                        "{grade} amount of anechoic peritoneal fluid",
                        "Anechoic fluid of {grade} volume in all four quadrants",
                    ),
                    50,
                    grades=("small", "moderate", "large"),
                    gone="peritoneal fluid",
                    advice="diagnostic paracentesis",
                ),
            ),
        ),
        Topic(
            "pancreas",
            normal=("Visualized portions of the pancreas are unremarkable.",),
            kinds=(
                Kind(
                    "obscured pancreas",
                    (
                        "The pancreatic {site} is obscured by bowel gas",
                        "Overlying gas hides the pancreatic {site}",
                    ),
                    3,
                    sites=("head", "body", "tail"),
                    changes=(),
                ),
            ),
        ),
    ),
)
