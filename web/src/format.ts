// The number formats of unvanish.present.words, for what is read off under the pointer.

export function plain(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e") as [string, string];
  const power = Number(exponent);
  if (power > -4 && power < 5) return value.toFixed(Math.max(digits - 1 - power, 0));
  return `${mantissa}e${power}`;
}

export function decades(value: number | null | undefined, digits = 1): string {
  if (value === null || value === undefined) return "-";
  const text = value.toFixed(digits);
  if (Number(text) === 0) return (0).toFixed(digits);
  return value < 0 ? `\u2212${text.slice(1)}` : `+${text}`;
}

export const MARKS: Record<string, string> = {
  nan: "NaN or infinite",
  zero: "exactly zero",
  unmeasured: "not measured",
};
