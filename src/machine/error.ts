/** A machine cannot be built as configured. The message is for a person and names the field. */
export class MachineError extends Error {
  override readonly name = 'MachineError';
}
