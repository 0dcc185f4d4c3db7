"""One trunk, two heads: energy use (watts, a regression) from the start, the fault class joins half way through."""
import torch
from torch import nn

N, FAULTS, JOIN, STEPS = 1500, 4, 150, 400
sensors = torch.randn(N, 12)
watts = 300 * torch.tanh(sensors[:, 0] + sensors[:, 1]) + 200 * sensors[:, 2] * sensors[:, 3].sign() + 40 * sensors[:, 4]
fault = (sensors[:, 5:7] > 0).long() @ torch.tensor([2, 1])


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"energy": nn.Linear(64, 1), "fault": nn.Linear(64, FAULTS)})

    def forward(self, x, *wanted):
        shared = self.trunk(x)
        return [self.heads[name](shared) for name in wanted]


model = TwoHeads()
optimizer = torch.optim.Adam(
    [{"params": model.trunk.parameters()}, {"params": model.heads["fault"].parameters()},
     {"params": model.heads["energy"].parameters(), "lr": 0.3}], lr=4e-3)
clip, history = 2000.0, []
for step in range(STEPS):
    rows = torch.randint(0, N, (50,))
    if step < JOIN:
        (energy,) = model(sensors[rows], "energy")
        loss = (energy[:, 0] - watts[rows]).pow(2).mean()
    else:
        energy, logits = model(sensors[rows], "energy", "fault")
        loss = (energy[:, 0] - watts[rows]).pow(2).mean()
        loss = loss + 20000 * nn.functional.cross_entropy(logits, fault[rows])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    history.append(loss.item())
    if step % 50 == 49:
        print(step, history[-1])
print("final loss:", sum(history[-20:]) / 20)
