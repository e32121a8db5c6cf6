"""Answers of a fine-tuned model: `lorajob generate RUN|DIR`. Trains nothing and writes nothing but answers.

RUN is a run's name under the storage (`--storage`, default ./runs), or its address s3://bucket/prefix/NAME; DIR is a
run's folder, an adapter's, or a checkpoint's. Of a run the published adapter is taken, else its newest checkpoint.

    --prompt TEXT          one answer, streamed                          Request.prompt
    --file FILE            one prompt a line, JSON lines out; - is stdin  Request.file
    (neither)              a conversation: /reset, /quit, Ctrl-D ends, Ctrl-C stops an answer
    --base                 answer with the untuned model, too            Request.compare_base
    --system TEXT          in place of training's; empty: none           Request.system
    --max-new-tokens N     512                                           Request.max_new_tokens
    --temperature X        0: the likeliest token each time              Request.temperature
    --top-k N              sample from the N likeliest                   Request.top_k
    --seed N               sample the same again                         Request.seed
    --reasoning auto|show|hide at a terminal, always, never               Request.reasoning
    --storage URI          where RUN lies                                Request.storage
    --trust-remote-code    let the base model's own code run             Request.trust_remote_code
"""

from lorajob_runtime.generate.generator import Generator, Sampling
from lorajob_runtime.generate.request import Request
from lorajob_runtime.generate.run import run

__all__ = ["Generator", "Request", "Sampling", "run"]
