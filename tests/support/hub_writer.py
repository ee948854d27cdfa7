"""Writes the directory that a model hub would have of a float GGUF file: the names, shapes and orders of rows of transformers' own files.

What is done here is the inverse of what GGUF's converters do, and was found to give back transformers' weights when the fixtures were made
(tinylib.to_state there): so goldens of the GGUF file are goldens of the directory.
"""
import json
import shutil
from array import array

import model_files
from model_files import Gguf

WHOLE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
LLAMA = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
NORMS_AFTER = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
PARTS = {
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "olmo2": {**LLAMA, **NORMS_AFTER},
    "gemma2": {**LLAMA, **NORMS_AFTER, "ffn_norm": "pre_feedforward_layernorm"},
    "phi3": {**LLAMA, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "mixtral": {**LLAMA, "ffn_gate_inp": "block_sparse_moe.gate", "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
                "ffn_up_exps": "block_sparse_moe.experts.{}.w3", "ffn_down_exps": "block_sparse_moe.experts.{}.w2"},
    "qwen3_moe": {**LLAMA, "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.{}.gate_proj",
                  "ffn_up_exps": "mlp.experts.{}.up_proj", "ffn_down_exps": "mlp.experts.{}.down_proj"},
}  # fmt: skip
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe"}


def halves(content, rows, heads):
    """Rows whose rotated pairs are neighbours, as two halves of each head."""
    row, head = len(content) // rows, rows // heads
    order = [h * head + r for h in range(heads) for r in (*range(0, head, 2), *range(1, head, 2))]
    return b"".join(content[r * row : (r + 1) * row] for r in order)


def minus_one(content):
    return array("f", (x - 1.0 for x in array("f", content))).tobytes()


def hub_tensors(family, file, key):
    """name -> (shape, bytes) of a directory of this family."""
    out = {}
    for name, (shape, _, content) in file.tensors.items():
        words = name.split(".")
        if words[0].startswith("rope_factors"):
            continue
        if words[0] != "blk":
            out[f"{WHOLE[words[0]]}.{words[1]}"] = (shape, minus_one(content) if family == "gemma2" and "norm" in name else content)
            continue
        part = words[2]
        if family == "mixtral" and part in ("attn_q", "attn_k"):
            content = halves(content, shape[0], key("attention.head_count" if part == "attn_q" else "attention.head_count_kv"))
        if family == "gemma2" and part.endswith("norm"):
            content = minus_one(content)
        hub = f"model.layers.{words[1]}.{PARTS[family][part]}.{words[3]}"
        if part.endswith("_exps"):
            one = len(content) // shape[0]
            out.update({hub.format(e): (shape[1:], content[e * one : (e + 1) * one]) for e in range(shape[0])})
        else:
            out[hub] = (shape, content)
    return out


def hub_config(family, file, key):
    """config.json with the keys that published ones have."""
    config = {
        "model_type": family, "num_hidden_layers": key("block_count"), "hidden_size": key("embedding_length"),
        "intermediate_size": key("feed_forward_length"), "num_attention_heads": key("attention.head_count"),
        "num_key_value_heads": key("attention.head_count_kv"), "max_position_embeddings": key("context_length"),
        "rms_norm_eps": key("attention.layer_norm_rms_epsilon"), "rope_theta": key("rope.freq_base", 10000.0), "rope_scaling": None,
        "tie_word_embeddings": "output.weight" not in file.tensors, "vocab_size": file.tensors["token_embd.weight"][0][0],
        "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "use_cache": True,
    }  # fmt: skip
    if key("attention.key_length"):
        config["head_dim"] = key("attention.key_length")
    if key("expert_count"):
        config["num_experts" if family == "qwen3_moe" else "num_local_experts"] = key("expert_count")
        config["num_experts_per_tok"] = key("expert_used_count")
    if family == "qwen3_moe":
        config.update(moe_intermediate_size=key("expert_feed_forward_length"), norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
    if family == "mixtral":
        config.update(sliding_window=None, router_jitter_noise=0.0, output_router_logits=False)
    if family == "gemma2":
        config.update(hidden_activation="gelu_pytorch_tanh", hidden_act="gelu_pytorch_tanh", query_pre_attn_scalar=config["head_dim"],
                      sliding_window=key("attention.sliding_window"), attn_logit_softcapping=key("attn_logit_softcapping"),
                      final_logit_softcapping=key("final_logit_softcapping"))  # fmt: skip
    if family == "phi3":
        lists = {kind: list(array("f", file.tensors[f"rope_factors_{kind}.weight"][2])) for kind in ("short", "long")}
        config.update(sliding_window=None, original_max_position_embeddings=key("rope.scaling.original_context_length"),
                      rope_scaling={"type": "longrope", "short_factor": lists["short"], "long_factor": lists["long"]})  # fmt: skip
    return config


def write_hub(family, gguf, folder, tokenizer):
    """Makes `folder`; returns what the GGUF file holds."""
    file = Gguf(gguf)
    key = lambda name, otherwise=None: file.keys.get(f"{ARCHITECTURES.get(family, family)}.{name}", otherwise)  # noqa: E731
    folder.mkdir()
    model_files.pack_safetensors(folder / "model.safetensors", hub_tensors(family, file, key))
    (folder / "config.json").write_text(json.dumps(hub_config(family, file, key)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder)
    return file
