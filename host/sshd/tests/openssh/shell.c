/* A shell for an image with musl: of each line it runs the words, and knows variables. */

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 64

static char *expanded(char *word)
{
    char *value = word;
    if (word[0] == '$')
        value = getenv(word + 1);
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
    char *words[WORDS + 1];
    int count = 0, status = 0;
    for (char *word = strtok(line, " \n"); word && count < WORDS; word = strtok(NULL, " \n"))
        words[count++] = expanded(word);
    words[count] = NULL;
    if (count == 0)
        return 0;
    if (strcmp(words[0], "exit") == 0)
        exit(count > 1 ? atoi(words[1]) : 0);
    if (strcmp(words[0], "whoami") == 0)
        return whoami();
    pid_t child = fork();
    if (child == 0) {
        execvp(words[0], words);
        perror(words[0]);
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
