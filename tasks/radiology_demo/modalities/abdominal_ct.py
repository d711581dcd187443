"""CT of the abdomen and pelvis."""

from tasks.radiology_demo.lexicon import FIXED, GROWING, Change, Indication, Kind, Modality, Topic

_SEGMENTS = ("segment II", "segment IV", "segment V", "segment VI", "segment VII", "segment VIII")

ABDOMINAL_CT = Modality(
    name="abdominal CT",
    exams=(
        "CT of the abdomen and pelvis with contrast",
        "CT abdomen and pelvis, portal venous phase",
        "Abdominal and pelvic CT",
    ),
    indications=(
        Indication("right lower quadrant pain", "appendix"),
        Indication("fever and leukocytosis, evaluate for appendicitis", "appendix"),
        Indication("distention and vomiting", "bowel"),
        Indication("flank pain and hematuria", "kidneys"),
        Indication("colon cancer, surveillance", "liver"),
        Indication("pulsatile abdominal mass", "vessels"),
        Indication("epigastric pain and elevated lipase", "pancreas"),
        Indication("sepsis of unknown source", "fluid"),
    ),
    normal="no acute abdominal or pelvic pathology",
    topics=(
        Topic(
            "liver",
            absent=("focal hepatic lesion", "liver mass"),
            normal=("The liver enhances homogeneously.",),
            answer="no hepatic metastasis",
            kinds=(
                Kind(
                    "{size} metastasis in hepatic {site}",
                    (
                        "A {size} hypoenhancing lesion lies in hepatic {site}",
                        "Rim enhancing lesion of {size} in hepatic {site}",
                    ),
                    64,
                    sites=_SEGMENTS,
                    size=(8, 66),
                    gone="lesion in hepatic {site}",
                ),
                Kind(
                    "hepatic steatosis",
                    ("{grade} diffuse fatty infiltration of the liver",),
                    14,
                    changes=(Change.STABLE,),
                ),
                Kind(
                    "hepatic cyst",
                    ("A {size} simple cyst in hepatic {site}",),
                    4,
                    sites=_SEGMENTS,
                    size=(6, 41),
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "gallbladder",
            absent=("biliary dilatation", "gallbladder wall edema"),
            normal=("The gallbladder is unremarkable.",),
            kinds=(
                Kind(
                    "acute cholecystitis",
                    (
                        "The gallbladder is distended with a thickened hyperemic wall",
                        "Inflammatory stranding surrounds a tense gallbladder",
                    ),
                    80,
                    changes=(Change.NEW,),
                    advice="surgical consultation",
                ),
                Kind(
                    "cholelithiasis",
                    ("Layering gallstones", "Several stones within the gallbladder"),
                    16,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "pancreas",
            absent=("peripancreatic stranding", "pancreatic ductal dilatation"),
            normal=("The pancreas is normal in bulk and attenuation.",),
            answer="no CT evidence of pancreatitis",
            kinds=(
                Kind(
                    "{grade} acute pancreatitis",
                    (
                        "{grade} swelling of the pancreas with adjacent fat infiltration",
                        "The pancreas is {grade}ly edematous with surrounding fluid",
                    ),
                    75,
                    gone="pancreatic edema",
                ),
                Kind(
                    "{size} cystic lesion of the pancreatic {site}",
                    (
                        "A well defined low density focus in the pancreatic {site} spans {size}",
                        "{size} cyst arises from the pancreatic {site}",
                    ),
                    34,
                    sites=("head", "neck", "body", "tail"),
                    size=(7, 38),
                    changes=GROWING,
                    advice="MR cholangiography",
                    advice_from=15,
                ),
            ),
        ),
        Topic(
            "kidneys",
            absent=("hydronephrosis", "obstructing ureteral calculus"),
            normal=("The kidneys enhance symmetrically.",),
            answer="no obstructing renal stone",
            kinds=(
                Kind(
                    "obstructing {size} {side} ureteral stone",
                    (
                        "A {size} calcification in the {side} distal ureter dilates the system",
                        "The {side} collecting system is dilated above a {size} stone",
                    ),
                    72,
                    size=(3, 13),
                    changes=FIXED,
                    gone="{side} ureteral stone",
                    advice="urology referral",
                    advice_from=7,
                ),
                Kind(
                    "{size} {side} renal mass suspicious for carcinoma",
                    (
                        "A {size} enhancing lesion bulges from the {side} kidney",
                        "Solid enhancing lesion of the {side} kidney, {size} in diameter",
                    ),
                    66,
                    size=(15, 79),
                    changes=GROWING,
                    advice="urology referral",
                ),
                Kind(
                    "renal cysts",
                    ("Scattered {side} renal cysts", "Simple cortical cysts of the {side} kidney"),
                    4,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "bowel",
            absent=("bowel obstruction", "dilated bowel loop"),
            normal=("The bowel is normal in course and caliber.",),
            answer="no bowel obstruction",
            kinds=(
                Kind(
                    "{grade} small bowel obstruction with transition in the {site}",
                    (
                        "{grade}ly dilated small bowel tapers abruptly in the {site}",
                        "{grade} small bowel distention up to a caliber change in the {site}",
                    ),
                    85,
                    sites=("left lower quadrant", "right lower quadrant", "mid pelvis"),
                    advice="surgical consultation",
                ),
                Kind(
                    "{site} diverticulitis",
                    (
                        "Wall thickening with pericolic fat stranding along the {site} colon",
                        "An inflamed outpouching of the {site} colon",
                    ),
                    70,
                    sites=("sigmoid", "descending", "ascending"),
                    gone="inflammation of the {site} colon",
                ),
                Kind(
                    "diverticulosis",
                    ("Colonic diverticula without inflammation",),
                    6,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "appendix",
            absent=("periappendiceal stranding",),
            normal=("A normal appendix is identified.",),
            answer="no evidence of appendicitis",
            kinds=(
                Kind(
                    "acute appendicitis with a caliber of {size}",
                    (
                        "The appendix is fluid filled and measures {size} with mural enhancement",
                        "Hyperemic appendix of {size} containing an appendicolith",
                    ),
                    88,
                    size=(9, 18),
                    changes=(Change.NEW,),
                    advice="surgical consultation",
                ),
            ),
        ),
        Topic(
            "vessels",
            normal=("The abdominal aorta is normal in caliber.",),
            answer="no abdominal aortic aneurysm",
            kinds=(
                Kind(
                    "{size} infrarenal aortic aneurysm",
                    (
                        "The infrarenal aorta is ectatic and measures {size}",
                        "Fusiform dilatation of the infrarenal aorta to {size}",
                    ),
                    60,
                    size=(31, 68),
                    changes=GROWING,
                    advice="consultation with vascular surgery",
                    advice_from=50,
                ),
                Kind(
                    "aortic atherosclerosis",
                    ("{grade} calcified plaque of the aorta and iliac arteries",),
                    5,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
        Topic(
            "fluid",
            absent=("free air", "drainable collection", "ascites"),
            answer="no intra-abdominal abscess",
            kinds=(
                Kind(
                    "{size} abscess in the {site}",
                    (
                        "A {size} rim enhancing pocket is seen in the {site}",
                        "Organized fluid with an enhancing wall in the {site} measures {size}",
                    ),
                    82,
                    sites=("pelvis", "right paracolic gutter", "left subphrenic space"),
                    size=(21, 92),
                    gone="pocket in the {site}",
                    advice="percutaneous drainage",
                    advice_from=30,
                ),
                Kind(
                    "{grade} ascites",
                    (
                        "{grade} volume of simple fluid around the liver and in the pelvis",
                        "There is a {grade} quantity of free fluid",
                    ),
                    38,
                    grades=("small", "moderate", "large"),
                    gone="free fluid",
                ),
            ),
        ),
        Topic(
            "bones",
            kinds=(
                Kind(
                    "degenerative change",
                    ("{grade} degenerative change of the lumbar spine",),
                    4,
                    changes=(Change.STABLE,),
                ),
            ),
        ),
    ),
)
