"""Records what transformers' BertForSequenceClassification gives for the cross-encoder of ``rerankers.py``.

python tests/convert/record_rerank.py    (with torch and transformers; writes tests/convert/data/rerank.json)
"""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]


def main() -> None:
    import torch
    import transformers
    from rerankers import DOCUMENTS, QUERY, write_reranker

    with tempfile.TemporaryDirectory() as name:
        folder = write_reranker(Path(name) / "model")
        model = transformers.BertForSequenceClassification.from_pretrained(
            folder, num_labels=1, attn_implementation="eager"
        )
        model.eval()
        tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
        rows = []
        for document in DOCUMENTS:
            inputs = tokenizer(QUERY, document, return_tensors="pt")
            with torch.no_grad():
                score = float(model.double()(**inputs).logits[0, 0])
            ids, segments = inputs["input_ids"][0].tolist(), inputs["token_type_ids"][0].tolist()
            rows.append({"document": document, "ids": ids, "segments": segments, "score": score})
    golden = {"transformers": transformers.__version__, "torch": torch.__version__, "query": QUERY, "rows": rows}
    target = HERE / "data" / "rerank.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(golden) + "\n")
    print(target, [row["score"] for row in rows])


if __name__ == "__main__":
    main()
