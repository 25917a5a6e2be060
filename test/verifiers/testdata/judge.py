# Asks servers on 127.0.0.1, trusting the certificates of a file only.
# Usage: judge.py ROOTS; standard input has "PORT HOST" lines.
import socket
import ssl
import sys

context = ssl.create_default_context(cafile=sys.argv[1])
for line in sys.stdin:
    port, host = line.split()
    try:
        with socket.create_connection(("127.0.0.1", int(port)), 20) as raw:
            with context.wrap_socket(raw, server_hostname=host) as conn:
                conn.sendall(b"?")
                conn.recv(1)
                print(port, "accepts", flush=True)
    except (ssl.SSLError, ssl.CertificateError) as e:
        print(port, "refuses", " ".join(str(e).split()), flush=True)
