// Small dense algebra. A matrix is an array of rows, a vector an array of numbers.

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const plus = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
export const norm = (a) => Math.hypot(a[0], a[1], a[2]);
export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
];

// A point taken along by a 4 x 4 matrix.
export const mapped = (matrix, p) =>
  [0, 1, 2].map((r) => dot(matrix[r], p) + matrix[r][3]);

export const determinant = (m) => dot(m[0], cross(m[1], m[2]));

// X of A X = B, by elimination with row pivots. A (n x n) and B (n x m) are not changed.
export function solve(a, b) {
  const n = a.length;
  const rows = a.map((row, i) => Float64Array.from([...row, ...b[i]]));
  const width = n + b[0].length;
  for (let c = 0; c < n; c++) {
    let best = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(rows[r][c]) > Math.abs(rows[best][c])) best = r;
    [rows[c], rows[best]] = [rows[best], rows[c]];
    const pivot = rows[c];
    if (!(Math.abs(pivot[c]) > 0)) throw new Error("The points do not determine the transform.");
    for (let r = c + 1; r < n; r++) {
      const row = rows[r], factor = row[c] / pivot[c];
      if (factor !== 0) for (let k = c; k < width; k++) row[k] -= factor * pivot[k];
    }
  }
  for (let r = n - 1; r >= 0; r--) {
    const row = rows[r];
    for (let k = n; k < width; k++) {
      let left = row[k];
      for (let c = r + 1; c < n; c++) left -= row[c] * rows[c][k];
      row[k] = left / row[r];
    }
  }
  return rows.map((row) => Array.from(row.subarray(n)));
}

export function inverse(matrix) {
  return solve(matrix, matrix.map((_, i) => matrix.map((_, k) => (i === k ? 1 : 0))));
}

// Singular values (falling) and right singular vectors of n x 3 rows, and the rows times these
// vectors as columns: one-sided Jacobi rotations (Golub and Van Loan, Matrix Computations, 8.6).
export function singular(rows) {
  const columns = [0, 1, 2].map((c) => Float64Array.from(rows, (row) => row[c]));
  const axes = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const product = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  for (let sweep = 0; sweep < 30; sweep++) {
    let rotated = false;
    for (const [p, q] of [[0, 1], [0, 2], [1, 2]]) {
      const a = product(columns[p], columns[p]), b = product(columns[q], columns[q]);
      const c = product(columns[p], columns[q]);
      if (!(Math.abs(c) > 1e-16 * Math.sqrt(a * b))) continue;
      rotated = true;
      const tau = (b - a) / (2 * c);
      const t = (tau < 0 ? -1 : 1) / (Math.abs(tau) + Math.hypot(1, tau));
      const cosine = 1 / Math.hypot(1, t), sine = cosine * t;
      for (const pair of [columns, axes]) {
        const x = pair[p], y = pair[q];
        for (let i = 0; i < x.length; i++) {
          [x[i], y[i]] = [cosine * x[i] - sine * y[i], sine * x[i] + cosine * y[i]];
        }
      }
    }
    if (!rotated) break;
  }
  const values = columns.map((column) => Math.sqrt(product(column, column)));
  const order = [0, 1, 2].sort((i, j) => values[j] - values[i]);
  return {
    values: order.map((i) => values[i]),
    axes: order.map((i) => axes[i]),
    columns: order.map((i) => columns[i]),
  };
}
