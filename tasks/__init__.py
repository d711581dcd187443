"""Built-in tasks and metrics, registered like those of any plugin."""

from harness import Register, hookimpl, is_data_path, is_hub_reference

_PUBLIC = (
    ("xsum", "XSum", "XSum: news -> one sentence"),
    ("cnn_dailymail", "CnnDailyMail", "CNN/DailyMail: news -> highlights"),
    ("samsum", "SamSum", "SAMSum: chats -> summaries"),
    ("dialogsum", "DialogSum", "DialogSum: spoken dialogues -> summaries"),
)


@hookimpl
def register_tasks(register: Register) -> None:
    """Register the embedded task, the paper's data sets, and the user's own data."""
    register(
        "radiology_demo",
        "tasks.radiology_demo.task:RadiologyDemo",
        "embedded synthetic radiology reports: findings -> impression; needs no download",
    )
    register(
        "mimic_discharge",
        "tasks.mimic.task:Discharge",
        "MIMIC-IV discharge notes -> discharge diagnosis; needs the data: harness prepare",
    )
    register(
        "mimic_radiology",
        "tasks.mimic.task:Radiology",
        "MIMIC-IV radiology reports -> impression; needs the data: harness prepare",
    )
    register(
        "hcm",
        "tasks.dialogues:HealthCareMagic",
        "HealthCareMagic: patients' questions -> doctors' answers; needs ChatDoctor's file",
    )
    register(
        "icliniq",
        "tasks.dialogues:ICliniq",
        "iCliniq: patients' questions -> doctors' answers; needs ChatDoctor's file",
    )
    for name, target, summary in _PUBLIC:
        register(name, f"tasks.public:{target}", f"{summary}; from the Hugging Face hub")
    register.family(
        "hub:org/name",
        "tasks.public:HubTask",
        "a data set of the Hugging Face hub, such as hub:knkarthick/samsum",
        accepts=is_hub_reference,
    )
    register.family(
        "your own data",
        "tasks.files:FileTask",
        "a folder with train, eval and test files, or one file: JSONL, JSON, CSV or Parquet",
        accepts=is_data_path,
    )


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the metrics that ``--metrics`` finds by name."""
    register("rouge", "tasks.metrics.rouge:Rouge", "ROUGE-1, 2, L and Lsum: F1 with stemming")
    register("bleu", "tasks.metrics.bleu:Bleu", "sacreBLEU, and n-gram precisions of order 1 and 4")
    register("chrf", "tasks.metrics.bleu:Chrf", "chrF: F2 over character n-grams")
    register(
        "bertscore",
        "tasks.metrics.bertscore:BertScore",
        "similarity of contextual embeddings; needs a model, roberta-large by default",
    )
    register(
        "summac",
        "tasks.metrics.summac:SummaCZeroShot",
        "SummaC-ZS: entailment of the prediction by the source; needs an NLI model",
    )
    register(
        "summac_conv",
        "tasks.metrics.summac:SummaCConv",
        "SummaC-Conv: SummaC with a trained convolution; needs an NLI model and its weights",
    )
