/* Listening sockets of the unix kind (unix(7)). */
#ifndef VITRO_BASE_USOCK_H
#define VITRO_BASE_USOCK_H

/* A stream socket that listens at path, for this user only (0600). It has that name when it listens and not before, so whoever sees it is not
 * refused; it is bound under another name in the same folder, which stays there if we are killed in that moment. Not blocking, closed on exec.
 * Returns the descriptor, or -errno: -EADDRINUSE: there is something of that name; -ENAMETOOLONG: nobody could connect to it. */
int usock_listen(const char *path, int backlog);

#endif
