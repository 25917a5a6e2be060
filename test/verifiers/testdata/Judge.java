import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Socket;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/**
 * Asks servers on 127.0.0.1 as any program does that changes nothing of Java's
 * TLS; which roots it trusts, javax.net.ssl.trustStore says. Standard input has
 * "PORT HOST" lines.
 */
class Judge {
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        for (String line; (line = in.readLine()) != null;) {
            String[] ask = line.split(" ");
            Socket raw = new Socket("127.0.0.1", Integer.parseInt(ask[0]));
            raw.setSoTimeout(20_000);
            try (SSLSocket conn = (SSLSocket) factory.createSocket(raw, ask[1], raw.getPort(), true)) {
                SSLParameters parameters = conn.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                conn.setSSLParameters(parameters);
                conn.getOutputStream().write('?');
                conn.getInputStream().read();
                System.out.println(ask[0] + " accepts");
            } catch (SSLException e) {
                Throwable cause = e;
                while (cause.getCause() != null) {
                    cause = cause.getCause();
                }
                System.out.println(ask[0] + " refuses " + String.valueOf(cause.getMessage()).replaceAll("\\s+", " "));
            }
        }
    }
}
