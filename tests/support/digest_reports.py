"""Texts of seidb's report, for tests of the parser, the record and the task."""

from __future__ import annotations

BUCKETS = {
    "account": "DD99F093FABE4A5040BED462F0C079E063A85A2C2DE4280ACF37D6B9CE416BFE",
    "code": "CE772BD3BFF776A5FACD8421BA7DC4436D52B4CD7F7440D97FCB9E8C97D4CA71",
    "storage": "2B396AEEECC50B593AC5E521DC178A146D05A6CB98E9A3AC117A510E5792A157",
    "misc": "EC19D8A76F70EC6419D4C1E2E935616020410C147E043706F8FBBCE39790EB4D",
}
FINAL = "B3076C9B48CF7D4890BFF516B545708F3E87531EEC33E4B0F82D56EDE449A374"
ZEROES = "0" * 64


def report(backend: str = "flatkv", height: int = 100, version: int | None = None, fourth: str = "misc") -> str:
    """A report of the current generation for a state of one row a bucket."""
    opened = height if version is None else version
    context = f"backend: {backend}\nmode: native\ndb_dir: d\nsource: s\nrequested_height: {height}\nversion: {opened}\n"
    lines = [
        "EVM logical digest start",
        context,
        'time=T level=INFO msg="FlatKV store opened"',
        "Scan progress: p",
        "EVM logical digest report",
        context,
        "Bucket digests (final digest inputs)",
        f"account  count=1 bucket_digest={BUCKETS['account']}",
        f"code     count=1 bucket_digest={BUCKETS['code']}",
        f"storage  count=1 bucket_digest={BUCKETS['storage']}",
        f"{fourth}   count=1 bucket_digest={BUCKETS['misc']}",
        "",
        f"FINAL_DIGEST account+code+storage+{fourth} count=4 digest={FINAL}",
    ]
    return "\n".join(lines) + "\n"


CENSUS = (
    "Zero-value memiavl census\nzero_accounts=1 zero_codehash_rows=0 empty_code_values=2 zero_storage_slots=3\n"
    "live_accounts_with_zero_codehash_row=0 live_accounts_without_codehash_row=1\n\n"
)
