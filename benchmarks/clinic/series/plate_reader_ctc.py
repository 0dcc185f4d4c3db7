"""Reading number plates column by column: a small conv net with a GRU and the CTC loss."""

import torch
from torch import nn

GLYPHS, COLUMNS, HEIGHT = 6, 24, 8
shapes = torch.randn(GLYPHS + 1, HEIGHT)
shapes[0] = 0


def plates(n):
    images = 0.3 * torch.randn(n, HEIGHT, COLUMNS)
    lengths = torch.randint(2, 5, (n,))
    answers = torch.randint(1, GLYPHS + 1, (n, 4))
    for row in range(n):
        at = int(torch.randint(0, 4, ()))
        for k in range(int(lengths[row])):
            wide = int(torch.randint(2, 4, ()))
            images[row, :, at : at + wide] += shapes[answers[row, k]][:, None]
            at += wide + int(torch.randint(1, 3, ()))
    return images, answers, lengths


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(HEIGHT, 32, 3, padding=1)
        self.gru = nn.GRU(32, 24, bidirectional=True)
        self.out = nn.Linear(48, GLYPHS + 1)

    def forward(self, images):
        features = torch.relu(self.conv(images)).permute(2, 0, 1)
        return self.out(self.gru(features)[0]).log_softmax(-1)


reader = Reader()
optimizer = torch.optim.Adam(reader.parameters(), lr=8e-3)
ctc = nn.CTCLoss(blank=0)
losses = []
for step in range(180):
    images, answers, lengths = plates(24)
    loss = ctc(reader(images), answers, torch.full((24,), COLUMNS), lengths)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(reader.parameters(), 5.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
