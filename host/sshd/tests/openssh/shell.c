/* A shell for an image with musl: each line is a program with its arguments, or variables. */

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS 64

static char *expanded(char *part)
{
    char *value = part;
    if (part[0] == '$')
        value = getenv(part + 1);
    return value ? value : "";
}

/* Whom the C library knows this process to run as. */
static int whoami(void)
{
    const struct passwd *user = getpwuid(getuid());
    puts(user ? user->pw_name : "unknown");
    return fflush(stdout) ? 1 : 0;
}

static int run(char *line)
{
    char *arguments[ARGUMENTS + 1];
    int count = 0, status = 0;
    char *part = strtok(line, " \n");
    for (; part && count < ARGUMENTS; part = strtok(NULL, " \n"))
        arguments[count++] = expanded(part);
    arguments[count] = NULL;
    if (count == 0)
        return 0;
    if (strcmp(arguments[0], "exit") == 0)
        exit(count > 1 ? atoi(arguments[1]) : 0);
    if (strcmp(arguments[0], "whoami") == 0)
        return whoami();
    pid_t child = fork();
    if (child == 0) {
        execvp(arguments[0], arguments);
        perror(arguments[0]);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    char line[4096];
    int code = 0;
    if (argc == 3 && strcmp(argv[1], "-c") == 0)
        return run(argv[2]);
    while (fgets(line, sizeof line, stdin))
        code = run(line);
    return code;
}
