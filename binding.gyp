{
  # For who builds with node-gyp: the same list of sources as CMakeLists.txt, into the same build/Release/tsvmm.node.
  'targets': [
    {
      'target_name': 'tsvmm',
      'sources': ['<!@(cat native/sources.txt)'],
      'include_dirs': ['native'],
      'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS'],
      'cflags': ['-Wall', '-Wextra', '-Werror', '-fvisibility=hidden', '-isystem ../node_modules/node-addon-api'],
      'cflags!': ['-fno-exceptions'],
      'cflags_cc': ['-std=c++20', '-fexceptions'],
      'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20', '-fno-rtti'],
    },
    {
      'target_name': 'tsvmm-exec',
      'type': 'executable',
      'sources': [
        'native/exec/main.cc',
        'native/exec/console.cc',
        'native/exec/message.cc',
        'native/exec/options.cc',
        'native/exec/session.cc',
        'native/system/terminal.cc',
        'native/system/unix_socket.cc',
      ],
      'include_dirs': ['native'],
      'cflags': ['-Wall', '-Wextra', '-Werror', '-Os'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'ldflags': ['-Wl,--gc-sections', '-s'],
    },
    {
      'target_name': 'tsvmm-launch',
      'type': 'executable',
      'sources': ['native/launch/main.cc'],
      'cflags': ['-Wall', '-Wextra', '-Werror', '-Os'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'ldflags': ['-Wl,--gc-sections', '-s'],
    }
  ]
}
