"""Remember the first letter over a noisy text with a GRU."""
import torch
from torch import nn

T, LETTERS = 11, 6
net = nn.ModuleDict({"emb": nn.Embedding(LETTERS, 12), "gru": nn.GRU(12, 24), "out": nn.Linear(24, LETTERS)})
opt = torch.optim.Adam(net.parameters(), lr=1e-2)


def forward(text):
    _, h = net["gru"](net["emb"](text))
    return net["out"](h[-1])


losses = []
for step in range(400):
    text = torch.randint(0, LETTERS, (T, 32))
    logits = forward(text)
    loss = nn.functional.cross_entropy(logits, text[0])
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    opt.step()
    losses.append(loss.item())
    if step % 80 == 0:
        hits = (logits.argmax(1) == text[0]).float().mean().item()
        print(f"step {step:4d}  loss {loss.item():.4f}  hits {hits:.2f}")
print("final loss:", sum(losses[-10:]) / 10)
