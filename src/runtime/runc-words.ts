/**
 * What the guest's runtime says of a program that cannot be started, in runc's words: docker tells by them, letter for letter, whether
 * its own status is 127 or 126.
 */
export function asRuncSays(message: string, program: string): string {
  return message
    .replace(
      /^open executable: Operation not permitted$/,
      () => `exec: ${JSON.stringify(program)}: not a file: permission denied`,
    )
    .replace(
      /executable file [`'"](.*)['`"] not found in \$PATH(: No such file or directory)?/s,
      (_, name: string) => {
        const reason = name.includes('/')
          ? `stat ${name}: no such file or directory`
          : 'executable file not found in $PATH';
        return `exec: ${JSON.stringify(name)}: ${reason}`;
      },
    )
    .replace(/: (No such file or directory|Permission denied|Exec format error)$/, (reason) =>
      reason.toLowerCase(),
    );
}
