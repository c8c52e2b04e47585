// A service manager as sd_notify(3) sees it: listens on the UNIX datagram socket
// that its argument names ("@" begins an abstract name), and prints a line for
// each datagram: the sender's process id, and the text with "|" for line ends.
//
// node has no such sockets.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int count, char** words) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (count != 2 || strlen(words[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, words[1]);
  const size_t length = strlen(words[1]);
  if (words[1][0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  const socklen_t size = offsetof(sockaddr_un, sun_path) + length;
  const int on = 1;
  // The kernel says who has sent it (unix(7)).
  setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) return 1;
  puts("listening");
  fflush(stdout);
  for (;;) {
    char text[4096];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
    iovec part = {text, sizeof text - 1};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t received = recvmsg(fd, &message, 0);
    if (received < 0) return 1;
    text[received] = '\0';
    for (char* at = strchr(text, '\n'); at != nullptr; at = strchr(at, '\n')) *at = '|';
    ucred sender = {};
    if (cmsghdr* first = CMSG_FIRSTHDR(&message)) memcpy(&sender, CMSG_DATA(first), sizeof sender);
    printf("%d %s\n", sender.pid, text);
    fflush(stdout);
  }
}
