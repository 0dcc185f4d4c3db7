"""Find mass, damping and stiffness of a spring by rolling out the model and fitting the track (in millimetres)."""
import torch

STEPS, DT = 120, 0.05


def rollout(log_theta, start):
    damping, stiffness = log_theta.exp()
    x, v = start[:, 0], start[:, 1]
    path = []
    for _ in range(STEPS):
        v = v + DT * (-stiffness * x - damping * v)
        x = x + DT * v
        path.append(x)
    return torch.stack(path, 1)


start = torch.randn(12, 2) * 300 + 200
truth = torch.tensor([0.3, 2.0]).log()
track = rollout(truth, start) + 0.2 * torch.randn(12, STEPS)

log_theta = torch.nn.Parameter(torch.tensor([1.0, 1.2]).log())
solver = torch.optim.LBFGS([log_theta], lr=0.5, max_iter=1, line_search_fn=None, history_size=6)
losses = []


def closure():
    solver.zero_grad()
    loss = (rollout(log_theta, start) - track).square().mean()
    loss.backward()
    losses.append(loss.item())
    return loss


for _ in range(100):
    solver.step(closure)
print(log_theta.exp().tolist())
print("final loss:", sum(losses[-10:]) / 10)
