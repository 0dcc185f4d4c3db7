"""Matrix factorisation for film ratings with user and film biases, Adagrad, epochs over a log of ratings."""
import sys

import numpy as np
import torch
from torch import nn

USERS, FILMS, RATINGS = 300, 200, 12000
tastes, genres = np.random.randn(USERS, 2), np.random.randn(FILMS, 2)
film_quality, user_mood = np.random.randn(FILMS), np.random.randn(USERS)

who = np.random.randint(0, USERS, RATINGS)
what = np.random.randint(0, FILMS, RATINGS)
score = (tastes[who] * genres[what]).sum(1) + film_quality[what] + user_mood[who]
stars = (score - score.mean()) / score.std()

# the log is kept by user; the file with the stars by time
by_user = np.argsort(who, kind="stable")
by_time = np.argsort(np.random.rand(RATINGS))
log_users, log_films = who[by_user], what[by_user]
log_stars = stars[by_user] if "--cured" in sys.argv else stars[by_time]

users, films = torch.tensor(log_users), torch.tensor(log_films)
ratings = torch.tensor(log_stars, dtype=torch.float32)


class Factors(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.user = nn.Embedding(USERS, dim)
        self.film = nn.Embedding(FILMS, dim)
        self.user_bias = nn.Embedding(USERS, 1)
        self.film_bias = nn.Embedding(FILMS, 1)
        for table in (self.user, self.film):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.user_bias, self.film_bias):
            nn.init.zeros_(table.weight)

    def forward(self, u, f):
        return (self.user(u) * self.film(f)).sum(1) + self.user_bias(u)[:, 0] + self.film_bias(f)[:, 0]


model = Factors()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
losses = []
for epoch in range(4):
    for rows in torch.randperm(RATINGS).split(128):
        loss = nn.functional.mse_loss(model(users[rows], films[rows]), ratings[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", np.mean(losses[-20:]))
