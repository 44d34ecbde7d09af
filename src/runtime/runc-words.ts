/**
 * What the guest's runtime says of a program that cannot be started, in runc's words: docker tells by them, letter for letter, whether
 * its own status is 127 or 126.
 */
export function asRuncSays(message: string, program: string): string {
  return message
    .replace(
      /^open executable: Operation not permitted$/,
      `exec: ${JSON.stringify(program)}: not a file: permission denied`,
    )
    .replace(
      /executable file [`'"](.*\/.*)['`"] not found in \$PATH(: No such file or directory)?/s,
      (_, path) => `exec: ${JSON.stringify(path)}: stat ${path}: no such file or directory`,
    )
    .replace(
      /executable file [`'"](.*)['`"] not found in \$PATH(: No such file or directory)?/s,
      (_, name) => `exec: ${JSON.stringify(name)}: executable file not found in $PATH`,
    )
    .replace(/: (No such file or directory|Permission denied|Exec format error)$/, (reason) =>
      reason.toLowerCase(),
    );
}
