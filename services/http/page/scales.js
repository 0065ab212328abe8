// Arithmetic of axes. Pure.

/** About `count` round numbers within [low, high]; only whole ones, where asked. */
export function ticks(low, high, count = 5, isWhole = false) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(count - 1, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const round = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999);
  const step = isWhole ? Math.max(1, Math.round(round)) : round;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A linear map from [low, high] to [from, to]. */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/** [least, most] of values, a little wider where they are one. */
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  return low === high ? [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1] : [low, high];
}

/** Heights of labels, in order of the wanted ones, pushed apart to `gap` and kept within [top, bottom]. */
export function spread(wanted, gap, top, bottom) {
  const order = wanted.map((y, i) => [y, i]).sort((a, b) => a[0] - b[0]);
  const placed = [];
  for (const [y] of order) placed.push(Math.max(y, top, placed.length ? placed.at(-1) + gap : -Infinity));
  const overflow = Math.max(0, (placed.at(-1) ?? 0) - bottom);
  const heights = [];
  order.forEach(([, i], rank) => { heights[i] = placed[rank] - overflow; });
  return heights;
}
