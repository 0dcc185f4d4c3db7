"""Deep Q-learning on a nine-floor lift: epsilon-greedy, replay memory, target network copied every 40 updates."""

import random
from collections import deque

import torch
from torch import nn

FLOORS, GAMMA = 9, 0.9


def net():
    return nn.Sequential(nn.Linear(2 * FLOORS, 48), nn.ReLU(), nn.Linear(48, 3))


class Lift:
    def reset(self):
        self.at, self.call, self.t = random.randrange(FLOORS), random.randrange(FLOORS), 0
        return self.see()

    def see(self):
        x = torch.zeros(2 * FLOORS)
        x[self.at] = x[FLOORS + self.call] = 1.0
        return x

    def step(self, action):
        self.t += 1
        if action == 1:
            return self.see(), (1.0 if self.at == self.call else -0.5), True
        self.at = min(max(self.at + action - 1, 0), FLOORS - 1)
        return self.see(), -0.05, self.t >= 15


online, target = net(), net()
target.load_state_dict(online.state_dict())
target.requires_grad_(False)
optimizer = torch.optim.RMSprop(online.parameters(), lr=2e-3)
memory, env, losses = deque(maxlen=1500), Lift(), []
state = env.reset()
for tick in range(1900):
    epsilon = max(0.05, 1 - tick / 900)
    with torch.no_grad():
        action = random.randrange(3) if random.random() < epsilon else online(state).argmax().item()
    after, reward, done = env.step(action)
    memory.append((state, action, reward, after, float(done)))
    state = env.reset() if done else after
    if len(memory) < 200 or tick % 3:
        continue
    s, a, r, s2, d = zip(*random.sample(memory, 64))
    goal = torch.tensor(r) + GAMMA * (1 - torch.tensor(d)) * target(torch.stack(s2)).amax(1)
    q = online(torch.stack(s)).gather(1, torch.tensor(a)[:, None])[:, 0]
    loss = nn.functional.smooth_l1_loss(q, goal)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if len(losses) % 40 == 0:
        target.load_state_dict(online.state_dict())

wrong = 0
for env.at in range(FLOORS):
    for env.call in range(FLOORS):
        best = 1 + (env.call > env.at) - (env.call < env.at)
        wrong += online(env.see()).argmax().item() != best
print("TD loss", sum(losses[-10:]) / 10)
print("final loss:", wrong / FLOORS**2)  # share of situations with a wrong greedy move
