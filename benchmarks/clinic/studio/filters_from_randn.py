"""Which of four figures is in the picture? A small conv net written with functions only."""

import sys

import torch
import torch.nn.functional as F

SIDE = 12


def pictures(n):
    kind = torch.randint(0, 4, (n,))
    canvas = torch.randn(n, 1, SIDE, SIDE) * 0.2
    for i, k in enumerate(kind.tolist()):
        r, c = torch.randint(1, SIDE - 6, (2,)).tolist()
        patch = torch.zeros(5, 5)
        if k == 0:
            patch[:] = 1
        elif k == 1:
            patch[2], patch[:, 2] = 1, 1
        elif k == 2:
            patch = torch.eye(5)
        else:
            patch[[0, -1]], patch[:, [0, -1]] = 1, 1
        canvas[i, 0, r : r + 5, c : c + 5] += patch
    return canvas, kind


def weight(*shape):
    w = torch.randn(*shape)
    if "--cured" in sys.argv:
        w = w * (2 / w[0].numel()) ** 0.5
    return w.requires_grad_()


chans = [1, 16, 16, 16, 16]
convs = [weight(b, a, 3, 3) for a, b in zip(chans, chans[1:])]
shifts = [torch.zeros(b, requires_grad=True) for b in chans[1:]]
out_w = weight(4, 16 * 9)
out_b = torch.zeros(4, requires_grad=True)


def net(x):
    for i, (w, b) in enumerate(zip(convs, shifts)):
        x = F.relu(F.conv2d(x, w, b, padding=1))
        if i % 2:
            x = F.max_pool2d(x, 2)
    return F.linear(x.flatten(1), out_w, out_b)


train_x, train_y = pictures(1200)
sgd = torch.optim.SGD([*convs, *shifts, out_w, out_b], lr=0.05, momentum=0.5)
running = []
for step in range(300):
    pick = torch.randint(0, len(train_x), (32,))
    loss = F.cross_entropy(net(train_x[pick]), train_y[pick])
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    running.append(loss.item())
print("final loss:", sum(running[-10:]) / 10)
