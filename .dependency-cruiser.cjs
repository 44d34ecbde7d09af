// The layers of the design: an import points down only. The order is that of ARCHITECTURE.md.
const LAYERS = ['cli', 'runtime', 'machine', 'virtio', 'devices', 'boot', 'memory', 'kvm', 'addon'];

/** What each layer may import beside itself and node_modules. */
const BELOW = {
  cli: ['runtime', 'machine', 'virtio', 'devices', 'boot', 'memory', 'kvm', 'addon'],
  runtime: ['machine', 'virtio', 'devices', 'boot', 'memory', 'kvm', 'addon'],
  machine: ['virtio', 'devices', 'boot', 'memory', 'kvm', 'addon'],
  virtio: ['devices', 'memory', 'kvm', 'addon'],
  devices: ['memory', 'kvm', 'addon'],
  boot: ['memory', 'kvm', 'addon'],
  memory: ['kvm', 'addon'],
  kvm: ['addon'],
  addon: [],
};

const layerRules = LAYERS.map((layer) => {
  const forbidden = LAYERS.filter((other) => other !== layer && !BELOW[layer].includes(other));
  return {
    name: `layer-${layer}`,
    comment: `src/${layer} may import only ${BELOW[layer].join(', ') || 'nothing of the project'}`,
    severity: 'error',
    from: { path: `^src/${layer}/` },
    to: { path: ['^src/index\\.ts$', ...forbidden.map((other) => `^src/${other}/`)] },
  };
});

module.exports = {
  forbidden: [
    ...layerRules,
    {
      name: 'no-cycles',
      comment: 'two modules that need each other are one module, or need a third',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'no-orphans',
      comment: 'nothing imports it',
      severity: 'error',
      from: { orphan: true, pathNot: ['^src/index\\.ts$', '^src/cli/main\\.ts$', '\\.d\\.ts$'] },
      to: {},
    },
    {
      name: 'virtio-neighbours',
      comment: 'what two devices share lives one floor up',
      severity: 'error',
      from: { path: '^src/virtio/([^/]+)/' },
      to: { path: '^src/virtio/[^/]+/', pathNot: '^src/virtio/$1/' },
    },
    {
      name: 'no-dev-dependencies',
      comment: 'the product may use only what its users get',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev'], pathNot: '^node_modules/@types/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
};
