#!/bin/bash
# The main job on real microVMs: deploys two apps, measures from inside the guests
# who reaches whom, scales, destroys, stops, and looks for anything left.
# Everything happens in two network namespaces of its own: "host", where zwrmd
# runs, and "outside", which stands for the internet. The machine's own network is
# not touched.
set -euo pipefail

cd "$(dirname "$0")/.."
host=zwrm-demo-host-$$
outside=zwrm-demo-outside-$$
dir=$(mktemp -d /tmp/zwrm-demo.XXXXXX)
daemon=''
web=''
service=''
busybox=$(command -v busybox)
failures=0

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
on_host() { ip netns exec "$host" "$@"; }
zwrm() { build/zwrm --socket "$dir/zwrmd.sock" "$@"; }

# check compares what was measured with what must be.
check() {
	local what=$1 got=$2 want=$3
	if [ "$got" = "$want" ]; then
		printf '   ok    %s: %s\n' "$what" "$got"
	else
		printf '   WRONG %s: %s, expected %s\n' "$what" "$got" "$want"
		failures=$((failures + 1))
	fi
}

clean_up() {
	set +e
	[ -z "$daemon" ] || { zwrm destroy shop; zwrm destroy blog; kill "$daemon"; wait "$daemon"; } 2>/dev/null
	for server in $web $service; do { kill "$server" && wait "$server"; } 2>/dev/null; done
	ip netns delete "$host" 2>/dev/null
	ip netns delete "$outside" 2>/dev/null
	rm -rf "$dir"
}
trap clean_up EXIT

make_network() {
	ip netns add "$host"
	ip netns add "$outside"
	ip -n "$host" link add eth0 type veth peer name eth0 netns "$outside"
	ip -n "$host" link set lo up
	ip -n "$host" addr add 192.0.2.1/24 dev eth0
	ip -n "$host" link set eth0 up
	ip -n "$outside" link set lo up
	ip -n "$outside" addr add 192.0.2.2/24 dev eth0
	ip -n "$outside" link set eth0 up
	ip -n "$host" route add default via 192.0.2.2
	# The outside host answers every request with the address that it came from.
	mkdir -p "$dir/www/cgi-bin"
	# shellcheck disable=SC2016 # the guest's shell expands it
	printf '#!%s sh\necho; echo "$REMOTE_ADDR" | tr -d "[]" | sed "s/^::ffff://"\n' "$busybox" >"$dir/www/cgi-bin/index.cgi"
	chmod +x "$dir/www/cgi-bin/index.cgi"
	ip netns exec "$outside" "$busybox" httpd -f -p 80 -h "$dir/www" &
	web=$!
}

start_daemon() {
	cat >"$dir/config.toml" <<-EOF
		[server]
		socket = "$dir/zwrmd.sock"
		[database]
		path = "$dir/state/state.db"
		[network]
		external_interface = "eth0"
		[network.bridge]
		enabled = true
		[images]
		dir = "$dir/images"
	EOF
	ip netns exec "$host" build/zwrmd --config "$dir/config.toml" 2>"$dir/zwrmd.log" &
	daemon=$!
	for _ in $(seq 100); do
		zwrm network status >/dev/null 2>&1 && return
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	echo "zwrmd did not start:" >&2
	cat "$dir/zwrmd.log" >&2
	exit 1
}

# load_guests fills the table of VMs: name -> address of its guest.
declare -A address
declare -a guests
load_guests() {
	local name ip
	address=() guests=()
	while read -r name ip; do
		guests+=("$name")
		address[$name]=$ip
	done < <(zwrm ps | awk 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == "GUEST-IP") column = i; next} {print $1, $column}')
}

# from_guest has a guest try something, and prints its answer.
from_guest() {
	local guest=$1 what=$2 whom=$3
	on_host timeout 15 "$busybox" wget -q -O - "http://${address[$guest]}/cgi-bin/$what?$whom" 2>/dev/null || echo '?'
}

# expected says who must reach whom: VMs of one app, the gateway of one's own, the
# internet; nobody else.
expected() {
	local from=$1 to=$2
	case $to in
	internet | gateway) echo yes ;;
	host) echo no ;;
	*) if [ "${from%-*}" = "${to%-*}" ]; then echo yes; else echo no; fi ;;
	esac
}

# target returns what a guest has to try to reach a column of the matrix.
target() {
	local from=$1 to=$2
	case $to in
	internet) echo "tcp 192.0.2.2:80" ;;
	host) echo "tcp 192.0.2.1:8080" ;;
	gateway) echo "ping ${address[$from]%.*}.$((${address[$from]##*.} - 1))" ;;
	*) echo "ping ${address[$to]}" ;;
	esac
}

# matrix has every guest try every other and shows what came of it.
matrix() {
	local from to want got columns=("${guests[@]}" gateway internet host)
	for from in "${guests[@]}"; do
		for to in "${columns[@]}"; do
			# shellcheck disable=SC2046 # two words
			[ "$from" = "$to" ] || from_guest "$from" $(target "$from" "$to") >"$dir/$from.$to" &
			tries+=($!)
		done
	done
	wait "${tries[@]}"
	printf '   %-10s' 'from \ to'
	printf '%-10s' "${columns[@]}"
	echo
	for from in "${guests[@]}"; do
		printf '   %-10s' "$from"
		for to in "${columns[@]}"; do
			[ "$from" != "$to" ] || { printf '%-10s' .; continue; }
			got=$(cat "$dir/$from.$to")
			want=$(expected "$from" "$to")
			[ "$got" = "$want" ] || { got="$got!"; failures=$((failures + 1)); }
			printf '%-10s' "$got"
		done
		echo
	done
}

# What there is of ours.
taps() { on_host ip -o link show | grep -c ': zvm' || true; }
rules() { (on_host iptables-save && on_host ip6tables-save) 2>/dev/null | grep -c ZWRM || true; }
rows() { (zwrm ps && zwrm apps) | grep -vc ^NAME || true; }
# The machine's own network, but for how long addresses by DHCP are still good.
own() { { ip -o link; ip -o addr; ip route; } | sed -E 's/ (valid_lft|preferred_lft|expires) [^ ]+//g'; }
machines() { pgrep -c -f "qemu-system.*$dir" || true; }

say "A host and an internet, in namespaces of their own"
before=$(own)
make_network
# A service of the host that no guest may reach.
ip netns exec "$host" "$busybox" httpd -f -p 8080 -h "$dir/www" &
service=$!
start_daemon
zwrm network status
sed -n 's/.*level=WARN msg=/warning: /p' "$dir/zwrmd.log"

say "An image from Debian's cloud kernel, and two apps: shop with 3 microVMs, blog with 2"
zwrm image add small --kernel build/guest/kernel --initrd build/guest/initrd
SECONDS=0
zwrm deploy shop --image small --scale 3 --wait
zwrm deploy blog --image small --scale 2 --wait
echo "every guest answered after $SECONDS s"
zwrm ps

say "Who reaches whom (each guest tries each other; gateway: ping; internet and a service of the host: TCP)"
load_guests
matrix
check "the internet sees shop-0 as" "$(from_guest shop-0 get 192.0.2.2:80)" 192.0.2.1

say "The rules: one accept per app, then drop, however many VMs there are"
on_host iptables -S ZWRM-PRIVATE | sed 's/^/   /'

say "Scale shop to 1 and blog to 3"
zwrm scale shop 1
zwrm scale blog 3 --wait
load_guests
matrix

say "Destroy, stop, look for anything left"
zwrm destroy shop
zwrm destroy blog
check "rows" "$(rows)" 0
check "processes" "$(machines)" 0
kill "$daemon"
wait "$daemon" && status=0 || status=$?
daemon=''
check "zwrmd ended with status" "$status" 0
check "TAPs" "$(taps)" 0 # until now there were spare ones
check "rules" "$(rules)" 0
check "the machine's own network" "$(if [ "$before" = "$(own)" ]; then echo unchanged; else echo changed; fi)" unchanged

[ "$failures" = 0 ] || { printf '\n%s WRONG\n' "$failures"; exit 1; }
printf '\nAll as it should be.\n'
