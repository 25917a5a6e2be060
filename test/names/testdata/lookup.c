/* Resolves names with this libc, and prints for each look-up the name, how long
 * it took in microseconds, and the addresses, sorted; for an address, its name.
 * "!none" means that there is no such name, "!" and a text any other failure.
 *
 *   lookup ROUNDS NAME...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { most = 32 };

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static void print_failure(int err)
{
	if (err == EAI_NONAME
#ifdef EAI_NODATA
	    || err == EAI_NODATA
#endif
	)
		printf("!none\n");
	else
		printf("!%s\n", gai_strerror(err));
}

static void print_addresses(const struct addrinfo *list)
{
	char found[most][INET6_ADDRSTRLEN];
	int n = 0;
	for (; list && n < most; list = list->ai_next)
		if (getnameinfo(list->ai_addr, list->ai_addrlen, found[n], sizeof found[n], NULL, 0, NI_NUMERICHOST) == 0)
			n++;
	qsort(found, n, sizeof found[0], by_text);
	const char *before = "";
	for (int i = 0; i < n; i++) {
		if (i && !strcmp(found[i], found[i - 1]))
			continue;
		printf("%s%s", before, found[i]);
		before = ",";
	}
	printf("\n");
}

static long long microseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void look_up(const char *name)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	char host[NI_MAXHOST];
	int reverse = inet_pton(AF_INET, name, &v4.sin_addr) == 1;
	long long began = microseconds();
	int err = reverse ? getnameinfo((struct sockaddr *)&v4, sizeof v4, host, sizeof host, NULL, 0, NI_NAMEREQD)
			  : getaddrinfo(name, NULL, &hints, &list);
	printf("%s\t%lld\t", name, microseconds() - began);
	if (err)
		print_failure(err);
	else if (reverse)
		printf("%s\n", host);
	else
		print_addresses(list);
	if (list)
		freeaddrinfo(list);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	for (int round = atoi(argv[1]); round > 0; round--)
		for (int i = 2; i < argc; i++)
			look_up(argv[i]);
	return fflush(stdout) ? 1 : 0;
}
