/** The oldest and the newest version of the OCI runtime specification that are followed. */
export const OCI_VERSION_MIN = '1.0.0';
export const OCI_VERSION_MAX = '1.3.0';
