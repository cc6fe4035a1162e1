"""What the gate runs: prints one JSON object per line, each with the number that is gated."""

import json
import time

from smooth import smooth

VALUES = [float(i * i % 97) for i in range(20_000)]

for _ in range(7):
    begin = time.perf_counter()
    smooth(VALUES, 16)
    seconds = time.perf_counter() - begin
    print(json.dumps({"values_per_s": len(VALUES) / seconds}))
