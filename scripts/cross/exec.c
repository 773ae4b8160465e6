/* SPDX-License-Identifier: MIT
 * Preloaded into programs of another architecture that qemu runs: what they execute goes through the same qemu. The
 * kernel itself can execute them only where it was told of qemu (binfmt_misc), a change to the whole machine.
 * Criterion executes its own program for each test.
 *
 * GYRE_CROSS_QEMU is the emulator, GYRE_CROSS_ROOT the folder with the libraries of the architecture. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARGS_MAX = 256, OWN_ARGS = 3 };

int execve(const char *path, char *const argv[], char *const envp[])
{
    const char *qemu = getenv("GYRE_CROSS_QEMU"), *root = getenv("GYRE_CROSS_ROOT");
    char *args[ARGS_MAX + OWN_ARGS + 2];
    int count = 0;
    if (qemu == NULL || root == NULL) {
        errno = ENOEXEC;
        return -1;
    }
    args[0] = (char *)qemu;
    args[1] = (char *)"-L";
    args[2] = (char *)root;
    args[OWN_ARGS] = (char *)path;
    while (argv[0] != NULL && argv[count + 1] != NULL && count < ARGS_MAX) {
        args[OWN_ARGS + 1 + count] = argv[count + 1];
        count++;
    }
    args[OWN_ARGS + 1 + count] = NULL;
    /* For the emulator these are of the wrong architecture. It sets them again (QEMU_SET_ENV). */
    for (int i = 0; envp[i] != NULL; i++)
        if (strncmp(envp[i], "LD_PRELOAD=", 11) == 0 || strncmp(envp[i], "LD_LIBRARY_PATH=", 16) == 0)
            envp[i][0] = '_';
    return (int)syscall(SYS_execve, qemu, args, envp);
}
