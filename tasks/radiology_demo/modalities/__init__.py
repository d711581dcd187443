"""The modalities that the synthetic reports come from."""

from tasks.radiology_demo.modalities.abdominal_ct import ABDOMINAL_CT
from tasks.radiology_demo.modalities.abdominal_ultrasound import ABDOMINAL_ULTRASOUND
from tasks.radiology_demo.modalities.chest_ct import CHEST_CT
from tasks.radiology_demo.modalities.chest_radiograph import CHEST_RADIOGRAPH
from tasks.radiology_demo.modalities.head_ct import HEAD_CT
from tasks.radiology_demo.modalities.lumbar_mr import LUMBAR_MR
from tasks.radiology_demo.modalities.thyroid_ultrasound import THYROID_ULTRASOUND

MODALITIES = (
    CHEST_RADIOGRAPH,
    CHEST_CT,
    HEAD_CT,
    ABDOMINAL_CT,
    LUMBAR_MR,
    ABDOMINAL_ULTRASOUND,
    THYROID_ULTRASOUND,
)
