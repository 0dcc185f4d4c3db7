"""Four sigmoid layers on the digits: nothing seems to happen for an epoch or so, then it takes off."""
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X, y = load_digits(return_X_y=True)
Xtr, Xte, ytr, yte = train_test_split(X / 16, y, test_size=0.2, random_state=0)
Xtr, Xte = (torch.tensor(a, dtype=torch.float32) for a in (Xtr, Xte))
ytr, yte = torch.tensor(ytr), torch.tensor(yte)


class SigmoidNet(torch.nn.Module):
    def __init__(self, sizes=(64, 64, 48, 48, 32)):
        super().__init__()
        self.hidden = torch.nn.ModuleList()
        for a, b in zip(sizes[:-1], sizes[1:]):
            self.hidden.append(torch.nn.Linear(a, b))
        self.last = torch.nn.Linear(sizes[-1], 10)

    def forward(self, h):
        for layer in self.hidden:
            h = layer(h).sigmoid()
        return self.last(h)


net = SigmoidNet()
adam = torch.optim.Adam(net.parameters(), lr=0.008)
losses = []
for epoch in range(11):
    for b in torch.randperm(len(Xtr)).split(32):
        loss = F.cross_entropy(net(Xtr[b]), ytr[b])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    with torch.no_grad():
        print(epoch, losses[-1], (net(Xte).argmax(1) == yte).float().mean().item())
print("final loss:", sum(losses[-10:]) / 10)
