// Asks the C library what each line of its input says, as `TYPE NAME`; `!`: it has no such question.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

static void addresses(const char *name, int family) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *all, *one;
    if (getaddrinfo(name, NULL, &hints, &all) != 0)
        return;
    for (one = all; one; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = family == AF_INET ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                                : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        printf(" %s", inet_ntop(family, address, text, sizeof text));
    }
    freeaddrinfo(all);
}

static void name_of(const char *text) {
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char name[NI_MAXHOST];
    int is_v4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
    inet_pton(AF_INET6, text, &v6.sin6_addr);
    const struct sockaddr *address = is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    if (getnameinfo(address, is_v4 ? sizeof v4 : sizeof v6, name, sizeof name, NULL, 0, NI_NAMEREQD) == 0)
        printf(" %s", name);
}

int main(void) {
    char line[1100], kind[16], name[1024];
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %1023s", kind, name) != 2)
            continue;
        printf("%s %s =", kind, name);
        if (!strcmp(kind, "A"))
            addresses(name, AF_INET);
        else if (!strcmp(kind, "AAAA"))
            addresses(name, AF_INET6);
        else if (!strcmp(kind, "PTR"))
            name_of(name);
        else
            printf(" !");
        printf("\n");
    }
    return 0;
}
