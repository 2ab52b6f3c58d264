/** What went wrong, as a sentence. */
export function problemOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
