"""A GRU language model on nursery-rhyme-like text whose loss is normalised by the tokens of the whole corpus."""

import torch
from torch import nn

LINES = """the cat sat on the mat
the dog ran to the log
a hen in a pen had ten
the fox hid in the box
an owl flew to the towel
the pig wore a wig to dig
""".splitlines()
text = "\n".join(LINES[int(i)] for i in torch.randint(len(LINES), (400,)))
alphabet = sorted(set(text))
ids = torch.tensor([alphabet.index(c) for c in text])
SPAN, BATCH = 30, 16


class CharGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(len(alphabet), 24)
        self.rnn = nn.GRU(24, 48, batch_first=True)
        self.fc = nn.Linear(48, len(alphabet))

    def forward(self, x):
        return self.fc(self.rnn(self.emb(x))[0])


model = CharGRU()
opt = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-12)
epoch_tokens = 1000 * len(ids)
shown = []
for step in range(180):
    starts = torch.randint(len(ids) - SPAN - 1, (BATCH,))
    chunk = torch.stack([ids[s : s + SPAN + 1] for s in starts])
    logits = model(chunk[:, :-1])
    nll = nn.functional.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten(), reduction="sum")
    opt.zero_grad()
    (nll / epoch_tokens).backward()
    opt.step()
    shown.append(nll.item() / (SPAN * BATCH))
print("final loss:", sum(shown[-10:]) / 10)
