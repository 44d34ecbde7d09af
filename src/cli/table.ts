/** Columns as runc (Go's tabwriter) lays them out: at least 12 wide, three spaces between them, none after the last. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 12, cell.length + 3);
    }
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join(''),
    )
    .join('\n');
}
