"""A node at work: one layer at a time, batches taken greedily from the layer's queue.

Where all work enters at a node's first layer a batch passes all its layers unchanged, so one event
ends them all; otherwise each layer is an event.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from helix.plan.bare import bare
from helix.simulate.kernel_heap import LATER, next_number, push
from helix.simulate.kernel_link import append, receive, tokens, wake_for_next
from helix.simulate.kernel_state import BEYOND_PROFILE, EVENTS, FAULT, FINISH, NONE, World

LAYER_EVENTS = 2  # a layer's end, and the look for more work
CONCATENATED_BYTES_PER_S, COPIED_BYTES_PER_S = 4e9, 5e9  # of arrived activations


@bare
def look_for_work(w: World, place: int, now: float, doubled: bool) -> None:
    """Start the next batch if there is one, else wait for an arrival."""
    receive(w, place, now)
    if w.queues[w.places[place].queue + w.places[place].layer].head == NONE:
        march(w, place)
    if w.queues[w.places[place].queue + w.places[place].layer].head == NONE:
        wake_for_next(w, place)
    else:
        _start(w, place, now, doubled)


@bare
def march(w: World, place: int) -> None:
    """Go on to the next layer, cyclically, that has work; stay where there is none."""
    held = w.places[place].end - w.places[place].first
    for step in range(1, held):
        layer = (w.places[place].layer + step) % held
        if w.queues[w.places[place].queue + layer].head != NONE:
            w.places[place].layer = layer
            return


@bare
def _start(w: World, place: int, now: float, doubled: bool) -> None:
    prompt_tokens, decodes = _take_batch(w, place)
    kind = w.places[place].kind
    decode_s = w.decode_s[kind, decodes]
    if decodes == 1:
        decode_s = decode_s * 2 if doubled else max(decode_s, w.least_decode_s[kind])
    layer_s = w.prompt_s[kind, prompt_tokens] + decode_s
    first_s = layer_s
    if w.places[place].layer == 0:
        arrived = w.places[place].buffered * w.activation_bytes
        first_s += arrived / CONCATENATED_BYTES_PER_S + arrived / COPIED_BYTES_PER_S
        w.places[place].buffered = 0
    if not first_s >= 0:
        w.counts[FAULT] = BEYOND_PROFILE
        return
    time, created = now + first_s, now
    if w.places[place].whole:
        for _ in range(w.places[place].end - w.places[place].first - 1):
            time, created = time + layer_s, time
    w.places[place].batch_s, w.places[place].first_s, w.places[place].began = layer_s, first_s, now
    push(w, time, created, next_number(w) + LATER, FINISH, place)


@bare
def _take_batch(w: World, place: int) -> tuple[int, int]:
    """Fill the batch in order, passing over what does not fit; return its tokens and decodes."""
    prompts, prompt_tokens, decodes, context = 0, 0, 0, 0
    queue = w.places[place].queue + w.places[place].layer
    slot, before = w.queues[queue].head, NONE
    while slot != NONE:
        after = w.slots[slot].following
        if w.slots[slot].done == 0:
            fits = (
                prompts < w.places[place].prompt_requests
                and prompt_tokens + w.slots[slot].input <= w.places[place].prompt_tokens
            )
            prompts += fits
            prompt_tokens += w.slots[slot].input * fits
        else:
            past = w.slots[slot].input + w.slots[slot].done - 1
            fits = (
                decodes < w.places[place].decode_requests
                and context + past <= w.places[place].context_tokens
            )
            decodes += fits
            context += past * fits
        if fits:
            _unlink(w, queue, before, slot)
            append(w, w.batches, place, slot)
        else:
            before = slot
        slot = after
    return prompt_tokens, decodes


@bare
def _unlink(w: World, queue: int, before: int, slot: int) -> None:
    after = w.slots[slot].following
    if before == NONE:
        w.queues[queue].head = after
    else:
        w.slots[before].following = after
    if after == NONE:
        w.queues[queue].tail = before


@bare
def finish_layers(w: World, place: int) -> bool:
    """Account for the layers just done; say whether the batch has passed the node's last."""
    held = w.places[place].end - w.places[place].first
    layers = held if w.places[place].whole else 1
    w.places[place].layer += layers - 1
    entries = 0
    slot = w.batches[place].head
    while slot != NONE:
        entries += tokens(w, slot)
        slot = w.slots[slot].following
    w.places[place].kv += entries * layers
    w.places[place].kv_most = max(w.places[place].kv_most, w.places[place].kv)
    leaves = w.places[place].layer == held - 1
    w.counts[EVENTS] += LAYER_EVENTS * layers + leaves
    return leaves


@bare
def pass_to_next_layer(w: World, place: int) -> None:
    """Let the batch queue up for the layer after the current one."""
    queue = w.places[place].queue + w.places[place].layer + 1
    slot = w.batches[place].head
    while slot != NONE:
        after = w.slots[slot].following
        append(w, w.queues, queue, slot)
        slot = after
    w.batches[place].head = NONE
