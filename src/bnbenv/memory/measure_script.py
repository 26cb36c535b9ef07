"""Load a model and train one step, and tell what it took; run by the environment's own Python.

Started as ``python -I -B measure_script.py REQUEST RESULT``: two JSON files. Standard library, torch,
transformers, peft and bitsandbytes only.
"""

import contextlib
import gc
import json
import resource
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    result = measured(request)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(result, file)


def measured(request):
    import bitsandbytes  # noqa: F401 - its import is a part of what is measured
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    cpu = request["device"] == "cpu"
    dtype = getattr(torch, request["dtype"])
    result = {"interpreter": host_peak()}
    settings = {}
    if request["quantization"] == "int8":
        settings["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif request["quantization"] != "none":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=request["quantization"],
            bnb_4bit_use_double_quant=request["double"],
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        request["model"],
        dtype=dtype,
        device_map="cpu" if cpu else {"": 0},
        local_files_only=True,
        trust_remote_code=False,
        **settings,
    )
    result["load"] = host_peak() if cpu else device_peak(torch)
    result["host_load"] = host_peak()
    result["tensors"] = tensors(model)
    if request["step"]:
        step(model, request, torch, dtype)
        result["working"] = host_peak() if cpu else device_peak(torch)
    return result


def step(model, request, torch, dtype):
    ids = torch.randint(0, model.config.get_text_config().vocab_size, (request["batch"], request["sequence"]))
    ids = ids.to(model.device)
    if not request["trains"]:
        with torch.inference_mode():
            model(input_ids=ids)
        return
    model = adapted(model, request, torch, dtype)
    if request["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = optimiser_of(request["optimiser"])(trained, lr=1e-4)
    for _ in range(2):
        with (
            torch.autocast(ids.device.type, dtype) if dtype is not torch.float32 else contextlib.nullcontext()
        ):
            model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    gc.collect()


def adapted(model, request, torch, dtype):
    """The model with LoRA where `memory` expects it, ready to train."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model,
        LoraConfig(
            r=request["rank"],
            lora_dropout=request["dropout"],
            target_modules=targets(model, torch),
            task_type="CAUSAL_LM",
        ),
    )
    if request["trainer"] == "trl":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
    model.enable_input_require_grads()
    model.train()
    return model


def targets(model, torch):
    """All layers; those of attention alone where the experts of a layer are one parameter."""
    if not any(parameter.dim() == 3 for parameter in model.parameters()):
        return "all-linear"
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in linear if "attn." in name}) or "all-linear"


def optimiser_of(name):
    import bitsandbytes as bnb

    return {
        "adamw_8bit": bnb.optim.AdamW8bit,
        "paged_adamw_8bit": bnb.optim.PagedAdamW8bit,
        "adamw_32bit": bnb.optim.AdamW32bit,
        "paged_adamw_32bit": bnb.optim.PagedAdamW32bit,
    }[name]


def tensors(model):
    """Bytes of every parameter, with all that its quantisation keeps beside it."""
    found = {}
    for name, parameter in model.named_parameters():
        total = parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        parts = []
        if state is not None:
            parts += [state.absmax, state.code]
            if state.nested:
                parts += [state.offset, state.state2.absmax, state.state2.code]
        scales = getattr(parameter, "SCB", None)
        if scales is not None:
            parts.append(scales)
        found[name] = total + sum(part.numel() * part.element_size() for part in parts)
    return found


def host_peak():
    """Bytes that this process had at most."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def device_peak(torch):
    """Bytes that this process has had at most on the device: the allocator's, and the context beside them."""
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return torch.cuda.max_memory_reserved() + max(0, beside)


if __name__ == "__main__":
    main()
