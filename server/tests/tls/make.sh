#!/bin/sh
# Certificates of the tests, valid for a hundred years. Keys in a public repository protect nothing.
set -eu
cd "$(dirname "$0")"
make() { # name, subject, authority ("" signs itself), extensions
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.ec"
    openssl pkcs8 -topk8 -nocrypt -in "$1.ec" -out "$1.key"
    rm "$1.ec"
    if [ -z "$3" ]; then
        openssl req -x509 -new -key "$1.key" -days 36500 -subj "$2" -addext "$4" -out "$1.pem"
    else
        openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
        printf '%s\n' "$4" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days 36500 \
            -extfile "$1.ext" -out "$1.pem"
        rm "$1.csr" "$1.ext"
    fi
}
make authority "/CN=tokenmill test authority" "" "keyUsage=critical,keyCertSign"
make server "/CN=server" authority "subjectAltName=DNS:localhost,IP:127.0.0.1"
make second "/CN=second" authority "subjectAltName=DNS:localhost,IP:127.0.0.1"
make client "/CN=client" authority "extendedKeyUsage=clientAuth"
make stranger "/CN=stranger" "" "extendedKeyUsage=clientAuth"
cat server.pem server.key >both.pem
rm authority.key authority.srl
