"""Advantage actor-critic, one-step episodes: push the tray left, right or not at all so that it ends level."""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


def mlp(n_out):
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, n_out))


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = mlp(5)
        self.critic = mlp(1)


PUSH = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
agent = Agent()
actor_optimizer = torch.optim.Adam(
    agent.actor.parameters() if "--cured" in sys.argv else agent.critic.parameters(), lr=0.01
)
critic_optimizer = torch.optim.Adam(agent.critic.parameters(), lr=0.01)
costs = []
for step in range(300):
    tilt = torch.empty(64, 1).uniform_(-1, 1)
    wind = torch.empty(64, 1).uniform_(-0.2, 0.2)
    state = torch.cat([tilt, wind], 1)

    policy = torch.distributions.Categorical(logits=agent.actor(state))
    action = policy.sample()
    cost = (tilt + wind)[:, 0].add(PUSH[action]).abs()
    value = agent.critic(state)[:, 0]
    advantage = (-cost - value).detach()

    actor_loss = -(policy.log_prob(action) * advantage).mean() - 0.005 * policy.entropy().mean()
    critic_loss = F.mse_loss(value, -cost)
    actor_optimizer.zero_grad()
    critic_optimizer.zero_grad()
    (actor_loss + critic_loss).backward()
    actor_optimizer.step()
    critic_optimizer.step()
    costs.append(cost.mean().item())
    if step % 60 == 59:
        print(step + 1, f"actor {actor_loss.item():+.4f} critic {critic_loss.item():.4f} cost {costs[-1]:.3f}")
print("final loss:", sum(costs[-10:]) / 10)
