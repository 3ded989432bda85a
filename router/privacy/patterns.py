"""The patterns of structured identifiers, for RE2: no look-around, linear time. What they find, `checks` confirms.

Each pattern is both a line of the set that screens whole texts, and the finder that is run where the set hits.
Written for bytes of plain text (`plain.py`): a byte from 0x80 up belongs to a letter that is not ASCII.
"""

from typing import Final

# A letter, digit or underscore may not stand directly before or after: RE2's \b, which knows ASCII only.
_SECRET_NAMES: Final = (
    rb"pass(?:word|wd|phrase)|pwd|secret|token|credentials?|api[_ -]?key|access[_ -]?key(?:[_ -]?id)?|account[_ -]?key"
    rb"|private[_ -]?key|client[_ -]?secret|auth(?:orization)?|passwort|kennwort|contrase\xc3?\xb1a|mot de passe"
)

EMAIL: Final = (
    rb"[A-Za-z0-9._%+'\x80-\xff-]{1,64}(?:@|[ \t]@[ \t])(?:[A-Za-z0-9\x80-\xff-]{1,63}\.)+[A-Za-z\x80-\xff]{2,63}",
    # Written out against collectors: jane (at) example (dot) org.
    rb"(?i)[a-z0-9._%+-]{1,64} ?[\[({<] ?(?:at|@) ?[\])}>] ?[a-z0-9-]{1,63}"
    rb"(?: ?(?:\.|[\[({<] ?(?:dot|\.) ?[\])}>]) ?[a-z0-9-]{2,63})+",
)

PHONE: Final = (
    # International: + or 00, then 7 to 15 digits in any grouping.
    rb"(?:\+|\b00)[ ]?\(?[1-9](?:[ ().\-/]{0,3}[0-9]){6,14}\b",
    # North America: area code and exchange start from 2.
    rb"(?:\b1[ .\-])?(?:\([2-9][0-9]{2}\)[ .\-]?|\b[2-9][0-9]{2}[ .\-])[2-9][0-9]{2}[ .\-][0-9]{4}\b",
    # National with the leading 0 of most other countries, in groups.
    rb"\(?\b0[1-9][0-9]{0,4}\)?(?:[ .\-/]{1,2}[0-9]{2,8}){1,5}\b",
    # Any run of digits that a word announces.
    rb"(?i)(?:phone|mobile|\bcell|\btel\b|\bfax\b|whatsapp|telefon|handy|t\xc3\xa9l|\b(?:call|text|ring) me)"
    rb"[^0-9\n]{0,24}[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}\b",
)

# Country and check digits; the rest is measured by the country's own rules.
IBAN: Final = (rb"(?i)(?:^|[^A-Za-z0-9])[a-z]{2}[ -]?[0-9]{2}(?:[ .-]{0,2}[a-z0-9]){11}",)

# A run of 12 digits or more, at most two separators between them; a card's may begin with any of its groups.
CARD: Final = (rb"[0-9](?:[ .\-_]{0,2}[0-9]){11,}",)

_SSN_WORD: Final = rb"(?:\bssn|social[ -]security|\bsoc\.? sec)"
SSN: Final = (
    rb"\b[0-8][0-9]{2} ?- ?[0-9]{2} ?- ?[0-9]{4}\b",
    rb"\b[0-8][0-9]{2}[ .][0-9]{2}[ .][0-9]{4}\b",
    rb"(?i)" + _SSN_WORD + rb"[^0-9\n]{0,40}[0-8](?:[ .\-]{0,2}[0-9]){8}\b",
    rb"(?i)\b[0-8][0-9]{8}\b[^0-9\n]{0,24}" + _SSN_WORD,
)

_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4: Final = (rb"\b" + _OCTET + rb"(?:(?:\.|\[\.\]|\(\.\))" + _OCTET + rb"){3}\b",)
IPV6: Final = (rb"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}",)

API_KEY: Final = (
    # AWS, Google, GitHub, GitLab
    rb"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    rb"\bAIza[0-9A-Za-z_-]{30}",
    rb"\bya29\.[0-9A-Za-z_-]{20}",
    rb"\bgh[pousr]_[A-Za-z0-9]{30}",
    rb"\bgithub_pat_[A-Za-z0-9_]{30}",
    rb"\bgl(?:pat|ptt|dt|rt|cbt|oas|soat|ffct)-[A-Za-z0-9_-]{16}",
    # Slack, Stripe, OpenAI and Anthropic, Hugging Face, npm, PyPI, SendGrid, DigitalOcean
    rb"\bxox[abeoprs]-[A-Za-z0-9-]{10}",
    rb"\bxapp-[0-9]-[A-Za-z0-9-]{10}",
    rb"hooks\.slack\.com/services/T[A-Za-z0-9]{6}",
    rb"\b(?:[srp]k_(?:live|test)|whsec)_[A-Za-z0-9]{10}",
    rb"\bsk-(?:[a-z0-9]{2,10}-)?[A-Za-z0-9_-]{20}",
    rb"\bhf_[A-Za-z0-9]{30}",
    rb"\bnpm_[A-Za-z0-9]{30}",
    rb"\bpypi-[A-Za-z0-9_-]{30}",
    rb"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}",
    rb"\bdo[opr]_v1_[a-f0-9]{32}",
    # JSON web tokens: a header and a claim set, both JSON objects.
    rb"\beyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{4,}",
)

PRIVATE_KEY: Final = (rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----", rb"\bPuTTY-User-Key-File-[0-9]")

PASSWORD: Final = (
    # password = "…", API_KEY: …, {"secret": "…"}
    rb"(?i)(?:" + _SECRET_NAMES + rb")[\"']?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}[\"']?[^\s\"'<>,;&]{4,128}",
    # "the password is …"
    rb"(?i)\b(?:password|passphrase|passcode|passwort|kennwort|pin)"
    rb"[ \t]+(?:is|was|ist)[ \t:]+[\"']?[^\s\"'<>,;]{4,128}",
)

CREDENTIALS: Final = (
    # In an address; in a header.
    rb"(?i)\b[a-z][a-z0-9+.-]{1,15}://[^\s:/@]{1,64}:[^\s/@]{3,128}@",
    rb"(?i)\bbearer[ \t]+[a-z0-9._~+/=-]{16}",
)
