"""What the commands, options and keys of earlier versions are called now."""

COMMANDS = {
    "scores": "sanet compare",
    "experiment": "sanet repeat, and for the paper's tables python -m reproduce",
    "recipes": "reproduce/recipes.py",
    "submit": "python -m reproduce submit",
}
# On the command line and in files alike. What a command still has under such a name is not looked up here.
OPTIONS = {
    "accelerator": "device",
    "accumulate": "gradient_accumulation",
    "arrays": "save_arrays",
    "largest_loss": "max_miou_drop",
    "mirror": "flip",
    "mirrors": "archive",
    "models": "sanet visualize --models",
    "out": "output",
    "recipe": "python -m reproduce",
    "truth": "masks",
    "workers": "num_workers",
    "augmentation.mirror": "augmentation.hflip",
    "data.partial": "data.allow_subset",
    "loss.alpha": "loss.terms.category",
    "loss.beta": "loss.terms.dense",
    "loss.category_target": "loss.terms",
    "loss.class_balance": "loss.class_weighting",
    "model.keep_what_fits": "model.strict false",
    "model.start_from": "model.init_from",
    "optimizer.head_factor": "optimizer.head_lr_multiplier",
    "optimizer.momentum": "optimizer.options.momentum",
    "optimizer.power": "schedule.options.power",
    "optimizer.warmup_steps": "schedule.warmup_steps",
}
