# shellcheck shell=sh
# What the scripts of cgi-bin share.

# answer TEXT: says TEXT.
answer() {
	printf 'Content-Type: text/plain\r\n\r\n%s\n' "$1"
}

# refuse STATUS TEXT: says TEXT with an HTTP status.
refuse() {
	printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1" "$2"
}

# check_question: ends the script unless the query is an address with or without
# a port. It becomes an argument of a command, so nothing else may pass, and
# nothing that looks like an option.
check_question() {
	case ${QUERY_STRING:-} in
	'' | -* | *[!0-9a-zA-Z.:-]*)
		refuse '400 Bad Request' 'the query is not ADDR or ADDR:PORT'
		exit 0
		;;
	esac
}
