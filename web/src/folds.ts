// Which rows of a map belong together: by the modules in their names, and by neighbourhood where there are too many.

export interface Group {
  path: string; // unique
  label: string;
  first: number;
  last: number; // inclusive
  level: number;
}

export interface Line {
  label: string;
  first: number;
  last: number;
  group: Group | null; // the folded group that the line stands for
}

const LEVELS = 3;
const MANY = 48;

/** The modules that hold more than one row, outermost first. */
export function groupsOf(rows: string[]): Group[] {
  const parts = rows.map((name) => name.replace(/ #\d+$/, (use) => `.${use.slice(1)}`).split("."));
  const found: Group[] = [];
  split(rows, parts, 0, rows.length - 1, 0, 0, "", found);
  return found;
}

function split(rows: string[], parts: string[][], from: number, to: number, depth: number, level: number, path: string, found: Group[]): void {
  if (level >= LEVELS || to - from < 2) return;
  const runs: [number, number][] = [];
  for (let i = from; i <= to; i += 1) {
    const last = runs[runs.length - 1];
    const same = last && parts[i]!.length > depth + 1 && parts[last[0]]!.length > depth + 1 && parts[i]![depth] === parts[last[0]]![depth];
    if (same) last[1] = i;
    else runs.push([i, i]);
  }
  if (runs.length === 1 && parts[from]!.length > depth + 1) {
    split(rows, parts, from, to, depth + 1, level, `${path}${parts[from]![depth]}.`, found); // one module holds all: go on inside
    return;
  }
  if (runs.length > MANY && runs.filter(([a, b]) => b > a).length < runs.length / 2) {
    buckets(rows, from, to, level, path, found);
    return;
  }
  for (const [a, b] of runs) {
    if (b === a) continue;
    const name = `${path}${parts[a]![depth]}`;
    found.push({ path: `${name}@${a}`, label: name, first: a, last: b, level });
    split(rows, parts, a, b, depth + 1, level + 1, `${name}.`, found);
  }
}

/** A flat stack of very many layers: neighbours are folded together. */
function buckets(rows: string[], from: number, to: number, level: number, path: string, found: Group[]): void {
  const size = Math.ceil((to - from + 1) / Math.ceil(Math.sqrt(to - from + 1)));
  for (let a = from; a <= to; a += size) {
    const b = Math.min(a + size - 1, to);
    if (b > a) found.push({ path: `${path}${a}~`, label: `${rows[a]} \u2026 ${rows[b]}`, first: a, last: b, level });
  }
}

/** What is drawn: one line for each row that is open, and one for each folded group. */
export function linesOf(rows: string[], groups: Group[], folded: Set<string>): Line[] {
  const shut = groups.filter((g) => folded.has(g.path)).sort((a, b) => a.first - b.first || b.last - a.last);
  const lines: Line[] = [];
  let next = 0;
  for (let r = 0; r < rows.length; ) {
    while (next < shut.length && shut[next]!.first < r) next += 1;
    const group = shut[next];
    if (group && group.first === r) {
      lines.push({ label: `${group.label} (${group.last - group.first + 1})`, first: r, last: group.last, group });
      r = group.last + 1;
    } else {
      lines.push({ label: rows[r]!, first: r, last: r, group: null });
      r += 1;
    }
  }
  return lines;
}
