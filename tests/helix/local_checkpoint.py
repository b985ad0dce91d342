"""A tiny checkpoint, a Hugging Face folder: weights, a byte-level tokenizer, a chat template."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

BOS, EOS, UNKNOWN = 256, 257, 258
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Write it; return the model and the tokenizer as transformers reads them back."""
    import tokenizers
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=259, hidden_size=64, intermediate_size=96, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.2, attn_implementation="sdpa", bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    fast = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    read = transformers.AutoTokenizer.from_pretrained(folder)
    read.decode = partial(read.decode, skip_special_tokens=True)  # as text is served
    assert read.convert_tokens_to_ids(["<s>", "</s>", "<unk>"]) == [BOS, EOS, UNKNOWN]
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), read


def continued(model: Any, ids: list[int], new: int, **how: Any) -> list[int]:
    """The greedy tokens that transformers goes on with, whatever ends an answer."""
    prompt = torch.tensor([ids])
    with torch.no_grad():
        done = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False,
            eos_token_id=None, pad_token_id=0, **how,
        )  # fmt: skip
    return done[0, len(ids) :].tolist()


def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """By position [T, V]: of what follows it."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
