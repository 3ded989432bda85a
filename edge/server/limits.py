"""How large requests may be and how many may come at once, so that what the server holds of them stays in its share.

A prompt may be as long as a full context could be in any language, and no longer: what is sure to be refused is not
worth tokenizing, which takes hundreds of bytes for each byte of text.
"""

# Text and code take 2 to 5 bytes per token; the base leaves room for a page of anything in a small context.
PROMPT_BYTES_PER_TOKEN = 8
BASE_PROMPT_BYTES = 64 * 2**10
# Beside the prompt: 16 stop texts of 1,024 characters, a tenant, and the wire's own bytes.
OTHER_BYTES = 96 * 2**10
# A message of a chat is hundreds of bytes here and may be 2 on the wire.
MAX_MESSAGES = 4096
# Calls of any kind; those beyond are refused before their message is read. Many watch a node, few ask it.
MAX_CALLS = 128
# What the tokenizer holds at most for each byte of a text: 200 to 250 measured, where each byte is a token.
TOKENIZING_BYTES = 256
# The server's other growth after the engine was given its share: answers, threads, connections.
GROWTH_BYTES = 32 * 2**20


def max_prompt_bytes(context_tokens: int) -> int:
    """Of a prompt's text in UTF-8."""
    return BASE_PROMPT_BYTES + PROMPT_BYTES_PER_TOKEN * context_tokens


def max_request_bytes(context_tokens: int) -> int:
    """Of a message on the wire. Between this and the longest prompt, the refusal is ours and has a reason."""
    return max_prompt_bytes(context_tokens) + OTHER_BYTES


def margin_bytes(context_tokens: int) -> int:
    """What the server may come to hold beyond what it holds when it starts.

    A message from each caller, one text being tokenized, and the rest.
    """
    tokenizing = TOKENIZING_BYTES * max_prompt_bytes(context_tokens)
    return MAX_CALLS * max_request_bytes(context_tokens) + tokenizing + GROWTH_BYTES
