#!/bin/sh
# Makes what docker-compose.yml needs and nobody shall know: passwords, and API keys. Run it once,
# before the first start; what is there already, stays. Everything is below docker/secrets, which git
# ignores:
#   api_key               a key to ask with: read and write
#   admin_key             a key for models and experiments
#   metrics_key           Prometheus' own
#   load_key              that of tests of load
#   keys/keys.toml        the service's file: their digests
#   redis.env, valkey.conf, redis_password    one password, as each of its readers wants it
#   grafana_password      of Grafana's user admin
set -eu
umask 022
cd "$(dirname "$0")"
mkdir -p secrets/keys
# The folder keeps others on this machine out. In a container a file is mounted alone, and who reads
# it there has another user id than whoever made it.
chmod 700 secrets
cd secrets

random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }
write() { cat >"$1.new" && mv "$1.new" "$1" && echo "docker/secrets/$1"; }

key() { # FILE NAME SCOPES
    [ ! -e "$1" ] || return 0
    secret="sidrec_$(random)"
    printf '[[key]]\nname = "%s"\nsha256 = "%s"\nscopes = [%s]\n' \
        "$2" "$(printf %s "$secret" | sha256 | cut -d ' ' -f 1)" "$3" >>keys/keys.toml
    printf %s "$secret" | write "$1"
}
key api_key shop '"read", "write"'
key admin_key operator '"admin"'
key metrics_key prometheus '"metrics"'
key load_key load '"read", "write", "metrics"'

if [ ! -e redis_password ]; then
    password=$(random)
    printf 'SIDREC_REDIS_URL=redis://:%s@valkey:6379/0\n' "$password" | write redis.env
    printf 'requirepass %s\n' "$password" | write valkey.conf
    printf %s "$password" | write redis_password
fi
[ -e grafana_password ] || random | write grafana_password
